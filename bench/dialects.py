"""Requests and response checks for the two APIs: Dify's, for nginx and the upstream itself, and OpenAI's.

The checks use none of the proxy's code, so that a bug of the proxy cannot hide itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import cycle
from typing import assert_never

import msgspec

from bench.scenarios import Scenario


class Dialect(StrEnum):
    dify = "dify"
    openai = "openai"


class WrongAnswer(Exception):
    """A target's response differs from the upstream's."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    message: _Delta = msgspec.field(default_factory=_Delta)


class _Extension(msgspec.Struct):
    conversation_id: str | None = None


class _OpenAIDocument(msgspec.Struct):
    """A chat completion, or a chunk of one; `dify` is the proxy's extension."""

    choices: list[_Choice]
    dify: _Extension = msgspec.field(default_factory=_Extension)


class _DifyEvent(msgspec.Struct):
    event: str
    answer: str = ""


_openai = msgspec.json.Decoder(_OpenAIDocument)
_dify = msgspec.json.Decoder(_DifyEvent)


def request_body(dialect: Dialect, scenario: Scenario, *, model: str, stream: bool) -> bytes:
    """Return the JSON body that requests a scenario. Dify always streams, since the proxy requests nothing else."""
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
    """Return the JSON body of an OpenAI client's request for a turn of a chat, from 1, with all earlier messages.

    The questions name the chat, since the proxy identifies conversations by their history.
    """
    *earlier, question = [f"{scenario.question} chat={chat} turn={number}" for number in range(1, turn + 1)]
    history = [text for asked in earlier for text in (asked, scenario.text)]
    return chat_body(history, question, model=model)


def chat_body(history: Sequence[str], question: str, *, model: str) -> bytes:
    """Return the JSON body of an OpenAI client's request. `history` holds messages of user and assistant in turn."""
    roles = cycle(("user", "assistant"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, [*history, question], strict=False)]
    return msgspec.json.encode({"model": model, "messages": messages})


def conversation_of(body: bytes) -> str | None:
    """Return the Dify conversation id in a chat completion of the proxy."""
    return _openai.decode(body).dify.conversation_id


def path(dialect: Dialect) -> str:
    """Return the route below the base URL, which ends with /v1."""
    return "/chat-messages" if dialect is Dialect.dify else "/chat/completions"


def check(dialect: Dialect, scenario: Scenario, *, stream: bool, status: int, body: bytes) -> None:
    """Raise WrongAnswer unless the response is complete and has exactly the upstream's text."""
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:500].decode(errors='replace')}")
    try:
        text = _text(dialect, body, stream=stream)
    except msgspec.DecodeError as exc:
        raise WrongAnswer(f"{exc}: {body[-500:].decode(errors='replace')}") from exc
    if text != scenario.text:
        raise WrongAnswer(
            f"expected {len(scenario.text)} characters, received {len(text)} different ones: …{text[-200:]!r}"
        )


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
        raise WrongAnswer(f"no event in the response: {body[:500].decode(errors='replace')}")
    return lines
