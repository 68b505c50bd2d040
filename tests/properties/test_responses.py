"""For any events, in any grouping, a Responses stream is complete and consistent."""

from __future__ import annotations

from itertools import cycle, pairwise
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.responses_answers import begin_response, response_object, status_of
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.openai.stored_frames import StoredFrames
from openai_dify_proxy.wire.openai.responses import RESPONSE, RESPONSES_REQUEST
from tests.properties.strategies import calls_of_tools, texts
from tests.response_events import events_of, gather_with_sdk, read_with_sdk

IDS = TurnIds("t", "m", "c")
DELTA = "response.output_text.delta"
THOUGHT = "response.reasoning_summary_text.delta"

citations = st.lists(st.builds(Citation, texts, st.none() | st.just("http://a"), st.just({})), max_size=2).map(tuple)
happenings: st.SearchStrategy[Event] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(TextReplaced, texts, st.booleans()),
    st.builds(StepChanged, texts, st.sampled_from(["started", "succeeded", "failed", "retrying"])),
    st.builds(FileProduced, st.just("http://f"), st.just("image"), linked=st.booleans()),
    st.builds(Citations, citations),
    st.builds(RefusalDelta, texts),
)
endings: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        TurnFinished,
        st.sampled_from(["stop", "length", "content_filter", "tool_calls"]),
        st.none() | st.just(Usage(1, 2, 3)),
        st.none() | texts,
    ),
    st.just(TurnFailed(StreamCut("The stream was cut."))),
)
turns = st.builds(
    lambda events, calls, end: [*events, *calls, end], st.lists(happenings, max_size=8), calls_of_tools(), endings
)
DELTAS = {
    DELTA,
    THOUGHT,
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
}
ENDS = {
    "response.output_text.done": "text",
    "response.reasoning_summary_text.done": "text",
    "response.refusal.done": "refusal",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
"""The events that repeat the joined deltas, and the field with them."""


def encoder(*, background: bool = False) -> ResponsesStreamEncoder:
    request = RESPONSES_REQUEST.decode(json.encode({"input": "Hi", "background": background}))
    response = begin_response(request, id="resp_1", created_at=1_700_000_000, model="support")
    return ResponsesStreamEncoder(response, now=lambda: 1_700_000_009)


def items_of(events: list[dict[str, Any]]) -> list[Any]:
    """Return the closed items, after checking that their texts and arguments equal their joined deltas."""
    deltas: dict[tuple[str, int], str] = {}
    for event in events:
        part = event.get("item_id", ""), event.get("content_index", 0)
        if event["type"] in DELTAS:
            deltas[part] = deltas.get(part, "") + event["delta"]
        elif event["type"] in ENDS:
            assert event[ENDS[event["type"]]] == deltas.get(part, "")
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    for item in items:
        contents = item.get("content") or item.get("summary") or [item]
        for index, content in enumerate(contents):
            field = next(name for name in ("text", "refusal", "arguments", "input") if name in content)
            assert content[field] == deltas.get((item["id"], index), "")
    return items


@given(turns, st.booleans())
def test_a_stream_is_consistent_and_the_sdk_accepts_it(turn: list[Event], background: bool) -> None:
    stream = encoder(background=background)
    data = stream.encode(turn, IDS)
    events = events_of(data)
    response = events[-1]["response"]
    items = items_of(events)
    text = "".join(event["delta"] for event in events if event["type"] == DELTA)
    assert stream.reply.text == (text or stream.answer.refusal or "")
    assert json.encode(stream.response) == json.encode(RESPONSE.decode(json.encode(response)))
    endings = {"response.completed", "response.incomplete", "response.failed"}
    assert [event["type"] in endings for event in events] == [False] * (len(events) - 1) + [True]
    if isinstance(turn[-1], TurnFailed):
        assert events[-2]["type"] == "error"
        assert response["output"][: len(items)] == items
        assert len(response["output"]) - len(items) <= 1
        with pytest.raises(openai.APIError, match="was cut"):
            read_with_sdk(data)
        return
    assert data.endswith(b"data: [DONE]\n\n")
    assert response["output"] == items
    calls = sum(isinstance(event, ToolCallStarted) for event in turn)
    kinds = [item["type"] for item in items]
    assert kinds.count("message") in ((0, 1) if calls else (1,))
    assert kinds.count("function_call") + kinds.count("custom_tool_call") == calls
    assert len(read_with_sdk(data)) == len(events)
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.output_text == "".join(event["delta"] for event in events if event["type"] == DELTA)


@given(turns, st.lists(st.integers(0, 9), max_size=6), st.lists(st.booleans(), min_size=8, max_size=8))
def test_frames_do_not_depend_on_how_events_arrive(turn: list[Event], cuts: list[int], beats: list[bool]) -> None:
    stream = encoder()
    ends = sorted({0, len(turn), *(min(cut, len(turn)) for cut in cuts)})
    data = b""
    quiet = b""
    for (begin, end), beat in zip(pairwise(ends), beats, strict=False):
        opening = stream.open()
        heartbeat = stream.heartbeat() if beat else b""
        frames = stream.encode(turn[begin:end], IDS)
        data += opening + heartbeat + frames
        quiet += opening + frames
    assert quiet == encoder().encode(turn, IDS)
    events_of(data)


@given(turns, st.integers(-1, 40), st.lists(st.integers(1, 400), min_size=1))
def test_a_resumed_stream_continues_after_the_given_number(turn: list[Event], after: int, sizes: list[int]) -> None:
    """The stored stream may be read in any pieces."""
    data = encoder().encode(turn, IDS)
    last = events_of(data)[-1]["sequence_number"]
    frames = StoredFrames(after)
    resumed = b""
    begin = 0
    for size in cycle(sizes):
        resumed += frames.feed(data[begin : begin + size])
        begin += size
        if begin >= len(data):
            break
        assert frames.within_frame == (not data[:begin].endswith(b"\n\n"))
    assert frames.ended == data.endswith(b"data: [DONE]\n\n") or b"event: response.failed" in data
    assert frames.number == last + 1
    assert data.endswith(resumed)
    if after < last:
        assert events_of(resumed, first=after + 1)[-1]["sequence_number"] == last
    else:
        assert resumed in (b"", b"data: [DONE]\n\n")


@given(turns)
def test_a_stream_ends_with_the_complete_answer(turn: list[Event]) -> None:
    answer = Answer()
    answer.add(turn)
    stream = encoder()
    whole = json.decode(
        json.encode(response_object(stream.response, answer, IDS, status=status_of(answer), completed_at=1_700_000_009))
    )
    streamed = events_of(stream.encode(turn, IDS))[-1]["response"]
    assert list(whole) == list(streamed)
    assert {name for name in whole if whole[name] != streamed[name]} <= {"output"}
    replaced = any(isinstance(event, TextReplaced) for event in turn)
    has_own_answer = isinstance(turn[-1], TurnFinished) and turn[-1].answer is not None
    if not replaced and not has_own_answer:
        assert stream.reply == answer.reply
    calls = [event for event in turn if isinstance(event, ToolCallStarted)]
    if answer.error is None and calls:
        assert whole["output"][-len(calls) :] == [item for item in streamed["output"] if "call_id" in item]
