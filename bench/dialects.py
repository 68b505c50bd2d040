"""How a target is asked, and how its answer is read: Dify's way, for nginx and the upstream itself, and OpenAI's.

Answers are read by code of the bench's own, never by the proxy's, so that a fault cannot excuse itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import msgspec

from bench.scenarios import Scenario


class Dialect(StrEnum):
    dify = "dify"
    openai = "openai"


class WrongAnswer(Exception):
    """A target answered something else than what the upstream said."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    message: _Delta = msgspec.field(default_factory=_Delta)


class _Extension(msgspec.Struct):
    conversation_id: str | None = None


class _OpenAIDocument(msgspec.Struct):
    """A chat completion, or a chunk of one; `dify` is the proxy's own addition."""

    choices: list[_Choice]
    dify: _Extension = msgspec.field(default_factory=_Extension)


class _DifyEvent(msgspec.Struct):
    event: str
    answer: str = ""


_openai = msgspec.json.Decoder(_OpenAIDocument)
_dify = msgspec.json.Decoder(_DifyEvent)


def request_body(dialect: Dialect, scenario: Scenario, *, model: str, stream: bool) -> bytes:
    """The JSON that asks for a scenario. Dify is always asked to stream, as the proxy asks it."""
    match dialect:
        case Dialect.dify:
            return msgspec.json.encode(
                {
                    "inputs": {},
                    "query": scenario.question,
                    "response_mode": "streaming",
                    "conversation_id": "",
                    "user": "bench",
                    "auto_generate_name": False,
                }
            )
        case Dialect.openai:
            messages = [{"role": "user", "content": scenario.question}]
            return msgspec.json.encode({"model": model, "messages": messages, "stream": stream})
        case _:
            assert_never(dialect)


def turn_body(scenario: Scenario, chat: int, turn: int, *, model: str) -> bytes:
    """The JSON by which a client of OpenAI's asks for a chat's turn, the first being 1: with all that was said before.

    Every chat has words of its own, or it could not be told from the others.
    """
    questions = [f"{scenario.question} chat={chat} turn={number}" for number in range(1, turn + 1)]
    messages = [{"role": "user", "content": questions[0]}]
    for question in questions[1:]:
        messages += [{"role": "assistant", "content": scenario.text}, {"role": "user", "content": question}]
    return msgspec.json.encode({"model": model, "messages": messages})


def conversation_of(body: bytes) -> str | None:
    """Dify's conversation, as a chat completion of the proxy's tells it."""
    return _openai.decode(body).dify.conversation_id


def path(dialect: Dialect) -> str:
    """Below the base URL, which ends with /v1."""
    return "/chat-messages" if dialect is Dialect.dify else "/chat/completions"


def check(dialect: Dialect, scenario: Scenario, *, stream: bool, status: int, body: bytes) -> None:
    """Raise WrongAnswer unless the answer is whole, properly ended, and says exactly what the upstream said."""
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:500].decode(errors='replace')}")
    try:
        text = _text(dialect, body, stream=stream)
    except msgspec.DecodeError as exc:
        raise WrongAnswer(f"{exc}: {body[-500:].decode(errors='replace')}") from exc
    if text != scenario.text:
        raise WrongAnswer(f"{len(scenario.text)} characters were said, {len(text)} others came: …{text[-200:]!r}")


def _text(dialect: Dialect, body: bytes, *, stream: bool) -> str:
    match dialect:
        case Dialect.dify:
            events = [_dify.decode(data) for data in _data_lines(body)]
            if events[-1].event != "message_end":
                raise WrongAnswer(f"the stream ends with {events[-1].event}")
            return "".join(event.answer for event in events)
        case Dialect.openai if stream:
            *chunks, last = _data_lines(body)
            if last != b"[DONE]":
                raise WrongAnswer(f"the stream ends with {last[:500].decode(errors='replace')}")
            choices = [choice for chunk in chunks for choice in _openai.decode(chunk).choices]
            return "".join(choice.delta.content or "" for choice in choices)
        case Dialect.openai:
            return _openai.decode(body).choices[0].message.content or ""
        case _:
            assert_never(dialect)


def _data_lines(body: bytes) -> list[bytes]:
    lines = [line[6:].rstrip(b"\r") for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not lines:
        raise WrongAnswer(f"no event came: {body[:500].decode(errors='replace')}")
    return lines
