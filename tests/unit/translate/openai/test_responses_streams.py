"""Streams in the form of the OpenAI API reference and of recorded answers of OpenAI, as read by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from openai_dify_proxy.errors import InternalError, RateLimited, StreamCut
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
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.openai.chat_streams import StreamEncoder
from openai_dify_proxy.translate.openai.responses_answers import begin_response, failed_response
from openai_dify_proxy.translate.openai.responses_frames import encode_failure
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.openai.responses import RESPONSES_REQUEST
from tests.response_events import events_of, gather_with_sdk, read_with_sdk
from tests.tool_events import PATCH, TIME, WEATHER, events_of_call, events_of_calls

IDS = TurnIds("t-1", "m-1", "c-1")
FINISHED = TurnFinished("stop", Usage(9, 2, 11))
IMAGE = FileProduced("http://dify/files/cat.png", "image", "cat.png")
LINK = "![cat.png](http://dify/files/cat.png)"

CREATED = ["response.created", "response.in_progress"]
ADDED = ["response.output_item.added", "response.content_part.added"]
DELTA = "response.output_text.delta"
DONE = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
REASONED = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]


def encoder(*, name: str = "resp_1", model: str = "support", **fields: Any) -> ResponsesStreamEncoder:
    request = RESPONSES_REQUEST.decode(json.dumps({"input": "Hi", **fields}))
    response = begin_response(request, id=name, created_at=1_700_000_000, model=model)
    return ResponsesStreamEncoder(response, now=lambda: 1_700_000_009)


def stream(*events: Event, **fields: Any) -> bytes:
    return encoder(**fields).encode(events, IDS)


def types(data: bytes, *, first: int = 0) -> list[str]:
    return [event["type"] for event in events_of(data, first=first)]


def text_of(data: bytes) -> str:
    return "".join(event["delta"] for event in events_of(data) if event["type"] == DELTA)


def final(data: bytes) -> Any:
    return events_of(data)[-1]["response"]


def test_it_is_a_stream_encoder() -> None:
    response_stream: StreamEncoder = encoder()
    assert response_stream.answer.text == ""


BEGUN = (
    b'{"id":"resp_1","object":"response","created_at":1700000000,"status":"in_progress","background":false,'
    b'"completed_at":null,"error":null,"frequency_penalty":0.0,"incomplete_details":null,"instructions":null,'
    b'"max_output_tokens":null,"max_tool_calls":null,"model":"support","output":[],"parallel_tool_calls":true,'
    b'"presence_penalty":0.0,"previous_response_id":null,"prompt_cache_key":null,"prompt_cache_retention":null,'
    b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,'
    b'"temperature":1.0,"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],'
    b'"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":null,"user":null,"metadata":{}}'
)
PART = b'{"type":"output_text","annotations":[],"logprobs":[],"text":"Hello."}'
MESSAGE = b'{"id":"msg_1","type":"message","status":"completed","content":[' + PART + b'],"role":"assistant"}'
COMPLETED = (
    BEGUN.replace(b'"in_progress"', b'"completed"')
    .replace(b'"completed_at":null', b'"completed_at":1700000009')
    .replace(b'"output":[]', b'"output":[' + MESSAGE + b"]")
    .replace(
        b'"usage":null',
        b'"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":2'
        b',"output_tokens_details":{"reasoning_tokens":0},"total_tokens":11}',
    )
    .replace(
        b'"metadata":{}',
        b'"metadata":{},"dify":{"conversation_id":"c-1","message_id":"m-1","task_id":"t-1","usage":{}}',
    )
)

# The frames of one stream, byte by byte.
HELLO = [
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":' + BEGUN + b"}\n\n",
    b'event: response.in_progress\ndata: {"type":"response.in_progress","sequence_number":1,"response":'
    + BEGUN
    + b"}\n\n",
    (
        b'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":2,'
        b'"output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","content":[],'
        b'"role":"assistant"}}\n\n'
    ),
    (
        b'event: response.content_part.added\ndata: {"type":"response.content_part.added","sequence_number":3,'
        b'"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","annotations":[],"logprobs":[],'
        b'"text":""}}\n\n'
    ),
    (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
        b'"item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hel","logprobs":[]}\n\n'
    ),
    (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":5,'
        b'"item_id":"msg_1","output_index":0,"content_index":0,"delta":"lo.","logprobs":[]}\n\n'
    ),
    (
        b'event: response.output_text.done\ndata: {"type":"response.output_text.done","sequence_number":6,'
        b'"item_id":"msg_1","output_index":0,"content_index":0,"text":"Hello.","logprobs":[]}\n\n'
    ),
    b'event: response.content_part.done\ndata: {"type":"response.content_part.done","sequence_number":7,'
    b'"item_id":"msg_1","output_index":0,"content_index":0,"part":' + PART + b"}\n\n",
    b'event: response.output_item.done\ndata: {"type":"response.output_item.done","sequence_number":8,'
    b'"output_index":0,"item":' + MESSAGE + b"}\n\n",
    b'event: response.completed\ndata: {"type":"response.completed","sequence_number":9,"response":'
    + COMPLETED
    + b"}\n\n",
    b"data: [DONE]\n\n",
]


def test_a_stream_from_created_to_done() -> None:
    assert stream(TextDelta("Hel"), TextDelta("lo."), FINISHED) == b"".join(HELLO)


def test_the_sdk_reads_the_stream() -> None:
    data = b"".join(HELLO)
    assert [event.type for event in read_with_sdk(data)] == types(data)
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.output_text == "Hello."
    assert gathered.usage is not None
    assert gathered.usage.total_tokens == 11


@pytest.mark.parametrize("text", ['H"i', "\u2028", "\x00", "🤔", '"delta":""', "%d %b %", '"sequence_number":0'])
def test_a_delta_may_be_any_text(text: str) -> None:
    data = stream(TextDelta(text), TextDelta(text), FINISHED)
    deltas = [event for event in events_of(data) if event["type"] == DELTA]
    assert [event["delta"] for event in deltas] == [text, text]
    assert [event["sequence_number"] for event in deltas] == [4, 5]
    assert final(data)["output"][0]["content"][0]["text"] == text * 2


def test_ids_and_models_may_have_any_name() -> None:
    name = 'x","delta":"%d",{'
    data = stream(TextDelta("a"), FINISHED, name=f"resp_{name}", model=name, metadata={name: name})
    assert final(data)["model"] == name
    assert {event["item_id"] for event in events_of(data) if "item_id" in event} == {f"msg_{name}"}


def test_the_opening_comes_first_and_once() -> None:
    response_stream = encoder()
    opening = response_stream.open()
    assert types(opening) == CREATED
    assert response_stream.open() == b""
    data = opening + response_stream.encode([TextDelta("a")], IDS)
    assert types(data) == [*CREATED, *ADDED, DELTA]
    assert types(encoder().encode([Citations(())], IDS)) == CREATED


def test_a_background_response_is_queued_first() -> None:
    """``response.created`` still comes first: the SDK's helper accepts no other first event."""
    data = stream(TextDelta("a"), FINISHED, background=True)
    opening = events_of(data)[:3]
    assert [event["type"] for event in opening] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in opening] == ["queued", "queued", "in_progress"]
    assert gather_with_sdk(data) is not None
    assert final(data)["background"] is True


def test_a_response_that_waits_is_queued_once() -> None:
    response_stream = encoder(background=True)
    queued = response_stream.queue()
    assert types(queued) == ["response.created", "response.queued"]
    assert response_stream.queue() == b""
    assert types(response_stream.open(), first=2) == ["response.in_progress"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_response_that_ends_in_the_queue_was_not_in_progress(end: str) -> None:
    response_stream = encoder(background=True)
    data = response_stream.queue()
    if end == "failed":
        data += response_stream.encode([TurnFailed(RateLimited("Slow."))], TurnIds())
        assert types(data)[2:] == ["error", "response.failed"]
    else:
        data += response_stream.cancel(TurnIds())
        assert types(data)[2:] == ["response.incomplete"]
    assert response_stream.response.status == end
    assert not response_stream.response.output


def test_reasoning_is_an_item_before_the_message() -> None:
    data = stream(StepChanged("LLM", "started"), ReasoningDelta("Hm."), TextDelta("a"), FINISHED)
    delta = "response.reasoning_summary_text.delta"
    assert types(data) == [
        *CREATED,
        *REASONED[:3],
        delta,
        *REASONED[3:],
        *ADDED,
        DELTA,
        *DONE,
        "response.completed",
    ]
    events = events_of(data)
    assert [event["delta"] for event in events if event["type"] == delta] == ["→ LLM\n", "Hm."]
    assert events[2]["item"] == {"id": "rs_1", "type": "reasoning", "summary": []}
    item = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "→ LLM\nHm."}]}
    assert events[8]["item"] == item
    assert final(data)["output"][0] == item
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 7 + [1] * 6
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.output_text == "a"


def test_the_text_is_always_one_message() -> None:
    """Later reasoning follows it, and steps are omitted."""
    data = stream(
        ReasoningDelta("1"),
        TextDelta("a"),
        StepChanged("LLM", "succeeded"),
        ReasoningDelta("2"),
        TextDelta("b"),
        ReasoningDelta("3"),
        FINISHED,
    )
    assert types(data) == [*CREATED, *REASONED, *ADDED, DELTA, DELTA, *DONE, *REASONED, "response.completed"]
    first, message, last = final(data)["output"]
    assert first["summary"][0]["text"] == "1"
    assert message["content"][0]["text"] == "ab"
    assert last == {"id": "rs_1_2", "type": "reasoning", "summary": [{"type": "summary_text", "text": "23"}]}
    assert gather_with_sdk(data) is not None


def test_steps_after_the_answer_leave_the_message_last() -> None:
    data = stream(TextDelta("a"), StepChanged("LLM", "succeeded"), FINISHED)
    assert [item["type"] for item in final(data)["output"]] == ["message"]


def test_text_without_characters_opens_nothing() -> None:
    data = stream(TextDelta(""), ReasoningDelta("Hm."), TextDelta("a"), TextDelta(""), FINISHED)
    assert [item["type"] for item in final(data)["output"]] == ["reasoning", "message"]
    assert types(data).count(DELTA) == 1


def test_an_answer_without_text_is_an_empty_message() -> None:
    data = stream(FINISHED)
    assert types(data) == [*CREATED, *ADDED, *DONE, "response.completed"]
    assert final(data)["output"][0]["content"][0]["text"] == ""


def test_citations_are_annotations() -> None:
    data = stream(
        TextDelta("Hello."),
        Citations((Citation("A", "http://a", {"position": 1}), Citation("B", None, {}), Citation("C", "http://c", {}))),
        FINISHED,
    )
    added = [event for event in events_of(data) if event["type"] == "response.output_text.annotation.added"]
    notes = [
        {"type": "url_citation", "start_index": 0, "end_index": 6, "url": "http://a", "title": "A"},
        {"type": "url_citation", "start_index": 0, "end_index": 6, "url": "http://c", "title": "C"},
    ]
    assert [(event["annotation_index"], event["annotation"]) for event in added] == list(enumerate(notes))
    assert [event["annotations"] for event in [final(data)["output"][0]["content"][0]]] == [notes]
    assert final(data)["dify"]["retriever_resources"] == [{"position": 1}, {}, {}]
    assert gather_with_sdk(data) is not None


def test_sent_text_is_not_retracted() -> None:
    response_stream = encoder()
    data = response_stream.encode([TextDelta("secret"), TextReplaced("Sorry.", moderated=True), IMAGE, FINISHED], IDS)
    assert text_of(data) == response_stream.reply.text == f"secret\n\nSorry.\n\n{LINK}"
    assert final(data)["output"][0]["content"][0]["text"] == response_stream.reply.text
    assert response_stream.answer.text == f"Sorry.\n\n{LINK}"
    assert final(data)["dify"]["replaced"] is True
    assert text_of(stream(TextDelta("He"), TextReplaced("Hello", moderated=False), FINISHED)) == "Hello"
    assert text_of(stream(IMAGE, FINISHED)) == LINK
    assert text_of(stream(TextDelta("a"), TurnFinished("stop", answer="b"))) == "a"


@pytest.mark.parametrize(("reason", "detail"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(reason: Any, detail: str) -> None:
    data = stream(TextDelta("a"), TurnFinished(reason))
    assert types(data)[-1] == "response.incomplete"
    assert data.endswith(b"data: [DONE]\n\n")
    assert final(data)["incomplete_details"] == {"reason": detail}
    assert final(data)["output"][0]["status"] == "incomplete"
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.status == "incomplete"


def test_a_failure_is_an_error_and_the_failed_response() -> None:
    response_stream = encoder()
    data = response_stream.encode(
        [ReasoningDelta("Hm."), TextDelta("Hel"), TurnFailed(StreamCut("The stream was cut."))], IDS
    )
    assert types(data) == [*CREATED, *REASONED, *ADDED, DELTA, "error", "response.failed"]
    error, failed = events_of(data)[-2:]
    assert error["error"] == {
        "message": "The stream was cut.",
        "type": "api_error",
        "param": None,
        "code": "upstream_incomplete",
    }
    response = failed["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": "The stream was cut."}
    assert [item.get("status") for item in response["output"]] == [None, "incomplete"]
    assert response["output"][1]["content"][0]["text"] == response_stream.reply.text == "Hel"
    with pytest.raises(openai.APIError, match=r"The stream was cut\."):
        read_with_sdk(data)
    with pytest.raises(openai.APIError, match=r"The stream was cut\."):
        gather_with_sdk(data)


def test_a_failure_before_any_text_is_a_stream_too() -> None:
    """A background response cannot report the failure in a status line."""
    data = stream(TurnFailed(RateLimited("Slow.", param="model")), background=True)
    assert types(data) == ["response.created", "response.queued", "response.in_progress", "error", "response.failed"]
    assert final(data)["output"] == []
    assert events_of(data)[3]["error"]["param"] == "model"


def test_a_failure_while_thinking() -> None:
    data = stream(ReasoningDelta("Hm."), TurnFailed(InternalError("It failed.")))
    assert [item["summary"][0]["text"] for item in final(data)["output"]] == ["Hm."]
    assert final(data)["error"]["code"] == "server_error"


def test_a_heartbeat_repeats_the_last_number() -> None:
    response_stream = encoder()
    first = response_stream.heartbeat()
    assert types(first) == [*CREATED, "keepalive"]
    assert first.endswith(b'event: keepalive\ndata: {"type":"keepalive","sequence_number":1}\n\n')
    data = (
        first
        + response_stream.encode([TextDelta("a")], IDS)
        + response_stream.heartbeat()
        + response_stream.encode([TextDelta("b"), FINISHED], IDS)
    )
    beats = [event["sequence_number"] for event in events_of(data) if event["type"] == "keepalive"]
    assert beats == [1, 4]
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.output_text == "ab"


def test_a_cancelled_response_ends_as_an_incomplete_one() -> None:
    response_stream = encoder(background=True)
    data = response_stream.encode([ReasoningDelta("Hm."), TextDelta("Hel")], IDS) + response_stream.cancel(IDS)
    assert types(data)[-4:] == [*DONE, "response.incomplete"]
    response = final(data)
    assert (response["status"], response["incomplete_details"], response["error"]) == ("cancelled", None, None)
    assert response["output"][1]["status"] == "incomplete"
    assert data.endswith(b"data: [DONE]\n\n")
    assert response_stream.response.status == "cancelled"
    assert gather_with_sdk(data) is not None


@pytest.mark.parametrize(("events", "output"), [([], 0), ([ReasoningDelta("Hm.")], 1)])
def test_a_response_may_be_cancelled_before_any_text(events: list[Event], output: int) -> None:
    response_stream = encoder()
    data = response_stream.encode(events, IDS) + response_stream.cancel(IDS)
    assert len(final(data)["output"]) == output
    assert gather_with_sdk(data) is not None


def test_another_worker_ends_the_stream_of_a_dead_worker() -> None:
    response_stream = encoder(background=True)
    frames = response_stream.encode([TextDelta("Hel")], IDS)
    lost = InternalError("The process that ran this response is gone.")
    failed = failed_response(response_stream.response, lost)
    data = frames + encode_failure(failed, lost, 6)
    assert types(data)[-2:] == ["error", "response.failed"]
    assert (final(data)["status"], final(data)["output"]) == ("failed", [])
    with pytest.raises(openai.APIError, match="is gone"):
        read_with_sdk(data)


CALLED = TurnFinished("tool_calls", Usage(9, 2, 11))

# The frames of two calls, byte by byte, between the opening and the end.
CALLS = [
    (
        b'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":2,'
        b'"output_index":0,"item":{"id":"fc_1_0","type":"function_call","status":"in_progress","arguments":"",'
        b'"call_id":"call_b","name":"get_time"}}\n\n'
    ),
    (
        b'event: response.function_call_arguments.delta\ndata: {"type":"response.function_call_arguments.delta",'
        b'"sequence_number":3,"item_id":"fc_1_0","output_index":0,"delta":"{}"}\n\n'
    ),
    (
        b'event: response.function_call_arguments.done\ndata: {"type":"response.function_call_arguments.done",'
        b'"sequence_number":4,"item_id":"fc_1_0","output_index":0,"arguments":"{}"}\n\n'
    ),
    (
        b'event: response.output_item.done\ndata: {"type":"response.output_item.done","sequence_number":5,'
        b'"output_index":0,"item":{"id":"fc_1_0","type":"function_call","status":"completed","arguments":"{}",'
        b'"call_id":"call_b","name":"get_time"}}\n\n'
    ),
    (
        b'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":6,'
        b'"output_index":1,"item":{"id":"ctc_1_1","type":"custom_tool_call","status":"in_progress",'
        b'"call_id":"call_d","input":"","name":"note"}}\n\n'
    ),
    (
        b'event: response.custom_tool_call_input.delta\ndata: {"type":"response.custom_tool_call_input.delta",'
        b'"sequence_number":7,"item_id":"ctc_1_1","output_index":1,"delta":"a"}\n\n'
    ),
    (
        b'event: response.custom_tool_call_input.done\ndata: {"type":"response.custom_tool_call_input.done",'
        b'"sequence_number":8,"item_id":"ctc_1_1","output_index":1,"input":"a"}\n\n'
    ),
    (
        b'event: response.output_item.done\ndata: {"type":"response.output_item.done","sequence_number":9,'
        b'"output_index":1,"item":{"id":"ctc_1_1","type":"custom_tool_call","status":"completed",'
        b'"call_id":"call_d","input":"a","name":"note"}}\n\n'
    ),
]


def test_calls_without_text_have_no_message() -> None:
    note: list[Event] = [ToolCallStarted(1, "call_d", "note", custom=True), ToolCallDelta(1, "a"), ToolCallFinished(1)]
    data = stream(*events_of_call(TIME), *note, CALLED)
    assert data[data.index(CALLS[0]) : data.index(b"event: response.completed")] == b"".join(CALLS)
    assert final(data)["status"] == "completed"
    assert [item["type"] for item in final(data)["output"]] == ["function_call", "custom_tool_call"]


def test_the_sdk_reads_calls() -> None:
    response_stream = encoder()
    data = response_stream.encode([TextDelta("Hm."), *events_of_calls(WEATHER, PATCH), CALLED], IDS)
    assert [event.type for event in read_with_sdk(data)] == types(data)
    gathered = gather_with_sdk(data)
    assert gathered is not None
    assert gathered.output_text == "Hm."
    assert [item.type for item in gathered.output] == ["message", "function_call", "custom_tool_call"]
    assert response_stream.reply == HistoryMessage("assistant", "Hm.", (WEATHER, PATCH))
    _, weather, patch = final(data)["output"]
    assert (weather["arguments"], patch["input"]) == (WEATHER.arguments, PATCH.arguments)


@pytest.mark.parametrize("text", ['"delta":""', "%d %b %", '"sequence_number":0', "\u2028"])
def test_arguments_and_names_may_hold_any_text(text: str) -> None:
    events: list[Event] = [ToolCallStarted(0, text, text), ToolCallDelta(0, text), ToolCallFinished(0), CALLED]
    data = stream(*events, name=f"resp_{text}")
    (item,) = final(data)["output"]
    assert (item["call_id"], item["name"], item["arguments"]) == (text, text, text)
    assert [event["delta"] for event in events_of(data) if event["type"].endswith("arguments.delta")] == [text]


def test_reasoning_message_and_calls_follow_each_other() -> None:
    data = stream(
        ReasoningDelta("1"),
        TextDelta("Hm."),
        ReasoningDelta("2"),
        StepChanged("LLM", "succeeded"),
        *events_of_call(WEATHER),
        ReasoningDelta("3"),
        Citations((Citation("A", "http://a", {}),)),
        *events_of_call(TIME, 1),
        ReasoningDelta("4"),
        CALLED,
    )
    output = final(data)["output"]
    assert [item["id"] for item in output] == ["rs_1", "msg_1", "rs_1_2", "fc_1_0", "rs_1_4", "fc_1_1", "rs_1_6"]
    assert [item["summary"][0]["text"] for item in output if item["type"] == "reasoning"] == ["1", "2", "3", "4"]
    assert [event["item"] for event in events_of(data) if event["type"] == "response.output_item.done"] == output
    assert gather_with_sdk(data) is not None


def test_nothing_is_added_to_a_message_after_a_call() -> None:
    late: list[Event] = [
        RefusalDelta("No."),
        TextDelta("late"),
        TextReplaced("later", moderated=True),
        ToolCallDelta(0, " "),
        IMAGE,
    ]
    data = stream(TextDelta("Hm."), *events_of_call(TIME), *late, CALLED)
    assert [item["type"] for item in final(data)["output"]] == ["message", "function_call"]
    assert text_of(data) == "Hm."
    assert final(data)["dify"]["files"][0]["url"] == IMAGE.url


def test_a_call_that_does_not_finish_is_closed() -> None:
    started = ToolCallStarted(0, "call_a", "f")
    data = stream(started, *events_of_call(WEATHER, 1), CALLED)
    assert [item["status"] for item in final(data)["output"]] == ["completed", "completed"]
    cut = stream(started, TurnFinished("length", Usage()))
    assert [item["status"] for item in final(cut)["output"]] == ["incomplete"]
    assert gather_with_sdk(cut) is not None


def test_a_failure_during_a_call() -> None:
    unfinished = events_of_call(TIME)[:-1]
    data = stream(TextDelta("Hm."), *unfinished, TurnFailed(StreamCut("The stream was cut.")))
    assert types(data)[-2:] == ["error", "response.failed"]
    message, call = final(data)["output"]
    assert message["status"] == "completed"
    assert (call["status"], call["arguments"], call["call_id"]) == ("incomplete", "{}", "call_b")


def test_a_cancelled_response_closes_its_call() -> None:
    response_stream = encoder(background=True)
    data = response_stream.encode(events_of_call(PATCH)[:2], IDS) + response_stream.cancel(IDS)
    assert types(data)[-3:] == [
        "response.custom_tool_call_input.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert final(data)["output"][0]["status"] == "incomplete"
    assert gather_with_sdk(data) is not None


REFUSED = [
    "response.content_part.added",
    "response.refusal.delta",
    "response.refusal.delta",
    "response.refusal.done",
    "response.content_part.done",
]


def test_a_refusal_is_a_part_of_the_message() -> None:
    response_stream = encoder()
    data = response_stream.encode([RefusalDelta("I can"), RefusalDelta("not."), RefusalDelta(""), FINISHED], IDS)
    added, done = "response.output_item.added", "response.output_item.done"
    assert types(data) == [*CREATED, added, *REFUSED, done, "response.completed"]
    assert final(data)["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    assert response_stream.reply == HistoryMessage("assistant", "I cannot.")
    assert gather_with_sdk(data) is not None


def test_a_refusal_after_a_text_is_its_second_part() -> None:
    data = stream(TextDelta("{"), RefusalDelta("I can"), RefusalDelta("not."), TextDelta("late"), FINISHED)
    assert types(data) == [*CREATED, *ADDED, DELTA, *DONE[:2], *REFUSED, DONE[2], "response.completed"]
    assert [part["type"] for part in final(data)["output"][0]["content"]] == ["output_text", "refusal"]
    indexes = [event["content_index"] for event in events_of(data) if "content_index" in event]
    assert indexes == [0] * 4 + [1] * 5
    assert gather_with_sdk(data) is not None


def test_a_failure_after_a_refusal() -> None:
    data = stream(TextDelta("{"), RefusalDelta("No."), TurnFailed(InternalError("It failed.")))
    (message,) = final(data)["output"]
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["{", "No."]


def test_missing_usage_is_an_estimate() -> None:
    initial = begin_response(RESPONSES_REQUEST.decode(b'{"input": "Hi"}'), id="resp_1", created_at=1, model="support")
    response_stream = ResponsesStreamEncoder(initial, now=lambda: 2, prompt_characters=9)
    response = final(response_stream.encode([TextDelta("Hello."), TurnFinished("stop")], IDS))
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3, 2, 5)
    assert response["dify"]["usage_estimated"] is True
