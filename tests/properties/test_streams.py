"""For any turn, Dify's bytes become a well-formed OpenAI stream that agrees with the folded answer."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from openai_dify_proxy.events import Event, TextDelta, TextReplaced, TurnFinished, TurnIds, Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead, encode_chat_completion, encode_text_completion
from openai_dify_proxy.translate.openai.chat_streams import ChatStreamEncoder, CompletionStreamEncoder
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from tests.properties.strategies import Turn, calls_of_tools, mistyped, plain_turns, texts, turns

HEAD = AnswerHead("chatcmpl-1", 1_700_000_000, "support")
REASONS = {"stop", "length", "content_filter", "tool_calls"}


class Delta(msgspec.Struct, forbid_unknown_fields=True):
    """A chunk's delta as in the OpenAI reference, with the common extension ``reasoning_content``."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    annotations: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    delta: Delta
    logprobs: None
    finish_reason: str | None


class Chunk(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    service_tier: None
    usage: dict[str, Any] | None = None
    dify: dict[str, Any] | None = None


def decoded(turn: Turn, rest: bytes = b"") -> list[list[Event]]:
    """Decode a turn frame by frame; return the events of each read."""
    decoder = DifyEventDecoder(turn.mode, origin="https://dify.example", progress=True)
    reads = [decoder.feed(frame + b"\n\n") for frame in (turn.data + rest).split(b"\n\n")[:-1]]
    return [*reads, decoder.finish()]


def payloads(data: bytes) -> list[bytes]:
    """Return the payloads of the frames; each frame must be exactly ``data: …`` and an empty line."""
    assert data.endswith(b"\n\n")
    frames = data.removesuffix(b"\n\n").split(b"\n\n")
    assert all(frame.startswith(b"data: ") and b"\n" not in frame and b"\r" not in frame for frame in frames)
    return [frame.removeprefix(b"data: ") for frame in frames]


def chat_stream(reads: list[list[Event]], *, include_usage: bool = True) -> list[bytes]:
    encoder = ChatStreamEncoder(HEAD, include_usage=include_usage)
    data = b"".join(encoder.encode(events, TurnIds("t", "m", "c")) for events in reads)
    return payloads(data)


def check_chat(found: list[bytes], *, include_usage: bool = True) -> str:
    """Check the form of a chat stream and return its text."""
    *body, last = found
    if last != b"[DONE]":
        error = json.loads(last)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        chunks = [msgspec.json.decode(payload, type=Chunk) for payload in body]
        assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    else:
        chunks = [msgspec.json.decode(payload, type=Chunk) for payload in body]
        if include_usage:
            usage = chunks.pop()
            assert usage.choices == []
            assert usage.usage is not None
            assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= set(usage.usage)
        reasons = [chunk.choices[0].finish_reason for chunk in chunks]
        assert reasons[-1] in REASONS
        assert not any(reasons[:-1])
    assert all(len(chunk.choices) == 1 and chunk.choices[0].index == 0 and chunk.usage is None for chunk in chunks)
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", *[None] * (len(chunks) - 1)][
        : len(chunks)
    ]
    assert {(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks} <= {
        ("chatcmpl-1", "chat.completion.chunk", 1_700_000_000, "support")
    }
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def folded(reads: list[list[Event]]) -> Answer:
    answer = Answer()
    for events in reads:
        answer.add(events)
    return answer


@given(turns)
def test_a_chat_stream_is_well_formed_and_is_the_folded_answer(turn: Turn) -> None:
    reads = decoded(turn)
    text = check_chat(chat_stream(reads))
    assert check_chat(chat_stream(reads, include_usage=False), include_usage=False) == text
    answer = folded(reads)
    events = [event for read in reads for event in read]
    has_own_answer = any(isinstance(event, TurnFinished) and event.answer is not None for event in events)
    if not has_own_answer and not any(isinstance(event, TextReplaced) for event in events):
        assert text == answer.text
    elif not has_own_answer:
        assert text.endswith(answer.text)


@given(turns)
def test_a_completion_stream_has_the_same_text(turn: Turn) -> None:
    reads = decoded(turn)
    encoder = CompletionStreamEncoder(HEAD, include_usage=False)
    data = b"".join(encoder.encode(events, TurnIds()) for events in reads)
    *body, last = payloads(data)
    if last == b"[DONE]":
        chunks = [json.loads(payload) for payload in body]
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert reasons[-1] in REASONS
        assert not any(reasons[:-1])
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == check_chat(chat_stream(reads))
    else:
        assert set(json.loads(last)) == {"error"}


@given(plain_turns())
def test_a_complete_answer_has_the_text_of_the_stream(turn: Turn) -> None:
    reads = decoded(turn)
    answer = folded(reads)
    whole = json.loads(encode_chat_completion(HEAD, answer, TurnIds()))
    choice = whole["choices"][0]
    assert choice["message"]["content"] == check_chat(chat_stream(reads))
    assert choice["finish_reason"] in REASONS
    legacy = json.loads(encode_text_completion(HEAD, answer, TurnIds()))
    assert legacy["choices"][0]["text"] == choice["message"]["content"]


@given(turns, mistyped())
def test_mistyped_events_never_break_the_stream(turn: Turn, rest: bytes) -> None:
    """Any JSON in citations and ids is encoded as JSON or as an error."""
    reads = decoded(turn, rest)
    check_chat(chat_stream(reads))
    json.loads(encode_chat_completion(HEAD, folded(reads), TurnIds()))


@given(turns, st.lists(texts.filter(bool), min_size=1, max_size=3))
def test_a_stream_cut_by_a_stop_sequence_is_complete(turn: Turn, sequences: list[str]) -> None:
    stop = StopSequences(sequences)
    reads = []
    for events in decoded(turn):
        reads.append(stop.filter(events))
        if stop.hit:
            break
    check_chat(chat_stream(reads))
    answer = folded(reads)
    linked = [file for file in answer.files if not file.linked]
    assert linked or not any(sequence in answer.text for sequence in sequences)


@pytest.mark.parametrize("include_usage", [True, False])
@given(turn=turns, beats=st.lists(st.integers(0, 20), max_size=4))
def test_heartbeats_change_nothing(include_usage: bool, turn: Turn, beats: list[int]) -> None:
    reads = decoded(turn)
    encoder = ChatStreamEncoder(HEAD, include_usage=include_usage)
    data = b""
    for index, events in enumerate(reads[:-1]):
        data += encoder.encode(events, TurnIds())
        if index in beats and encoder.answer.finish_reason is None and encoder.answer.error is None:
            data += encoder.heartbeat()
    data += encoder.encode(reads[-1], TurnIds())
    lines = b"\n\n".join(frame for frame in data.split(b"\n\n") if not frame.startswith(b":"))
    text = check_chat(payloads(lines), include_usage=include_usage)
    assert text == check_chat(chat_stream(reads, include_usage=include_usage), include_usage=include_usage)


CALLED = TurnFinished("tool_calls", Usage(1, 2, 3))


def joined(found: list[bytes]) -> dict[str, Any]:
    """Return the message that the official SDK joins from the chunks of a stream."""
    state = ChatCompletionStreamState()
    for payload in found[:-1]:
        state.handle_chunk(ChatCompletionChunk.construct(**json.loads(payload)))
    return state.current_completion_snapshot.choices[0].message.to_dict()


@given(st.lists(st.builds(TextDelta, texts), max_size=2), calls_of_tools(), st.lists(st.integers(0, 20), max_size=6))
def test_calls_are_those_of_the_folded_answer_however_they_arrive(
    start: list[Event], calls: list[Event], cuts: list[int]
) -> None:
    events = [*start, *calls, CALLED]
    ends = sorted({0, len(events), *(min(cut, len(events)) for cut in cuts)})
    found = chat_stream([events[begin:end] for begin, end in pairwise(ends)])
    assert found == chat_stream([events])
    check_chat(found)
    message, answer = joined(found), folded([events])
    assert message.get("content") or answer.text == ""
    streamed = [call.get("function") or call["custom"] for call in message.get("tool_calls") or []]
    assert [(call["name"], call.get("arguments", call.get("input"))) for call in streamed] == [
        (call.name, call.arguments) for call in answer.calls
    ]
    whole = json.loads(encode_chat_completion(HEAD, answer, TurnIds()))["choices"][0]["message"]
    assert [call["id"] for call in whole.get("tool_calls", [])] == [call.id for call in answer.calls]
    assert (whole["content"] is None) == (bool(answer.calls) and not answer.text)
