"""The response object of the OpenAI API reference and the Open Responses specification."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import json as fast_json
from openai.types.responses import Response as SdkResponse

from openai_dify_proxy.errors import (
    AppUnavailable,
    ContextTooLong,
    InternalError,
    InvalidRequest,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    StreamCut,
)
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
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.responses_answers import (
    begin_response,
    cancelled_response,
    failed_response,
    response_error,
    response_object,
    response_of_item,
    status_of,
    url_citation_annotations,
)
from openai_dify_proxy.translate.turn_request import ToolCall
from openai_dify_proxy.wire.openai.responses import RESPONSES_REQUEST, Response
from tests.tool_events import PATCH, TIME, WEATHER, events_of_call, events_of_calls

IDS = TurnIds("t-1", "m-1", "c-1")

# The keys that openai-openapi or the Open Responses specification require, in OpenAI's order.
REQUIRED = (
    "id object created_at status background completed_at error frequency_penalty incomplete_details instructions "
    "max_output_tokens max_tool_calls model output parallel_tool_calls presence_penalty previous_response_id "
    "prompt_cache_key prompt_cache_retention reasoning safety_identifier service_tier store temperature text "
    "tool_choice tools top_logprobs top_p truncation usage user metadata"
)


def begin(**fields: Any) -> Response:
    request = RESPONSES_REQUEST.decode(json.dumps({"input": "Hi", **fields}))
    return begin_response(request, id="resp_1", created_at=1_700_000_000, model="support")


def fold(*events: Event) -> Answer:
    answer = Answer()
    answer.add(events)
    return answer


def encode(response: Response, answer: Answer) -> bytes:
    whole = response_object(response, answer, IDS, status=status_of(answer), completed_at=1_700_000_009)
    return fast_json.encode(whole)


def ended(*events: Event, **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode(begin(**fields), fold(*events)))
    return document


def test_the_body_of_an_answer() -> None:
    answer = fold(
        ReasoningDelta("Hm."),
        TextDelta("Hel"),
        TextDelta("lo."),
        Citations((Citation("A", "http://a", {"position": 1}), Citation("B", None, {}))),
        TurnFinished("stop", Usage(9, 2, 11)),
    )
    assert encode(begin(), answer) == (
        b'{"id":"resp_1","object":"response","created_at":1700000000,"status":"completed","background":false,'
        b'"completed_at":1700000009,"error":null,"frequency_penalty":0.0,"incomplete_details":null,"instructions":null,'
        b'"max_output_tokens":null,"max_tool_calls":null,"model":"support","output":['
        b'{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"Hm."}]},'
        b'{"id":"msg_1","type":"message","status":"completed","content":[{"type":"output_text","annotations":['
        b'{"type":"url_citation","start_index":0,"end_index":6,"url":"http://a","title":"A"}],"logprobs":[],'
        b'"text":"Hello."}],"role":"assistant"}],"parallel_tool_calls":true,"presence_penalty":0.0,'
        b'"previous_response_id":null,"prompt_cache_key":null,"prompt_cache_retention":null,'
        b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,'
        b'"temperature":1.0,"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],'
        b'"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{"input_tokens":9,"input_tokens_details":'
        b'{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},'
        b'"total_tokens":11},"user":null,"metadata":{},"dify":{"conversation_id":"c-1","message_id":"m-1",'
        b'"task_id":"t-1","usage":{},"retriever_resources":[{"position":1},{}]}}'
    )


def test_every_required_key_is_always_present() -> None:
    unset = json.loads(fast_json.encode(begin()))
    assert " ".join(unset) == REQUIRED
    SdkResponse.model_validate(unset)
    document = ended(TurnFinished("length"))
    assert " ".join(document) == f"{REQUIRED} dify"
    SdkResponse.model_validate(document)


def test_request_fields_are_repeated() -> None:
    fields = {
        "background": True,
        "conversation": {"id": "conv_1"},
        "frequency_penalty": 0.25,
        "instructions": "Be kind.",
        "max_output_tokens": 64,
        "max_tool_calls": 2,
        "metadata": {"topic": "x"},
        "parallel_tool_calls": False,
        "presence_penalty": -1.5,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "store": True,
        "temperature": 0.0,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": "none",
        "tools": [
            {"type": "function", "description": None, "name": "f", "parameters": {}, "strict": False},
            {"type": "of_tomorrow"},
            7,
        ],
        "top_logprobs": 3,
        "top_p": 0.5,
        "truncation": "auto",
        "user": "ann",
    }
    document = ended(TextDelta("Hi"), TurnFinished("stop"), **fields)
    assert {name: document[name] for name in fields} == fields
    assert (
        ended(TurnFinished("stop"), previous_response_id="resp_0", store=False, service_tier="auto")["store"] is False
    )
    half = ended(TurnFinished("stop"), text={"format": None}, reasoning={"effort": "low"}, service_tier="auto")
    assert half["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert half["reasoning"] == {"effort": "low", "summary": None}
    assert half["service_tier"] == "default"
    assert ended(TurnFinished("stop"), previous_response_id="resp_0")["previous_response_id"] == "resp_0"


@pytest.mark.parametrize(
    ("reason", "status", "details", "completed_at"),
    [
        ("stop", "completed", None, 1_700_000_009),
        ("length", "incomplete", {"reason": "max_output_tokens"}, None),
        ("content_filter", "incomplete", {"reason": "content_filter"}, None),
    ],
)
def test_how_a_turn_finished(reason: Any, status: str, details: Any, completed_at: int | None) -> None:
    document = ended(TextDelta("Hi"), TurnFinished(reason))
    assert (document["status"], document["incomplete_details"], document["completed_at"]) == (
        status,
        details,
        completed_at,
    )
    assert document["output"][0]["status"] == status
    assert document["error"] is None


def test_usage_is_null_before_the_end_and_zero_if_dify_sends_none() -> None:
    usage = ended(TurnFinished("stop"))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert response_object(begin(), fold(TextDelta("Hi")), IDS, status="in_progress").usage is None
    assert ended(TurnFailed(StreamCut("Cut.")))["usage"] is None


def test_an_answer_without_text_is_an_empty_message() -> None:
    (item,) = ended(TurnFinished("stop"))["output"]
    assert item["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": ""}]
    assert response_object(begin(), fold(), IDS, status="in_progress").output == []


def test_steps_files_and_replacements_are_as_in_a_chat() -> None:
    document = ended(
        StepChanged("Search", "succeeded"),
        TextDelta("secret"),
        TextReplaced("Sorry.", moderated=True),
        FileProduced("http://dify/cat.png", "image", "cat.png"),
        TurnFinished("content_filter"),
    )
    reasoning, message = document["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "✓ Search\n"}]
    assert message["content"][0]["text"] == "Sorry.\n\n![cat.png](http://dify/cat.png)"
    assert document["dify"]["replaced"] is True
    assert document["dify"]["files"] == [{"url": "http://dify/cat.png", "type": "image", "filename": "cat.png"}]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("Bad."), "invalid_prompt"),
        (ContextTooLong("Long."), "context_length_exceeded"),
        (RateLimited("Slow."), "rate_limit_exceeded"),
        (QuotaExceeded("Broke."), "insufficient_quota"),
        (StreamCut("Cut."), "server_error"),
        (AppUnavailable("Off."), "server_error"),
        (InternalError("Ours."), "server_error"),
    ],
)
def test_a_failure_has_a_code_that_clients_know(error: ProxyError, code: str) -> None:
    document = ended(TextDelta("Hi"), TurnFailed(error))
    assert document["status"] == "failed"
    assert document["error"] == {"code": code, "message": error.message}
    assert document["completed_at"] is None
    assert document["output"][0]["status"] == "incomplete"
    assert response_error(error).code == code


def test_an_abandoned_response_keeps_its_text() -> None:
    """Its worker died, or another process cancelled it."""
    partial = response_object(begin(), fold(ReasoningDelta("Hm."), TextDelta("Hel")), IDS, status="in_progress")
    assert partial.output[1].status == "in_progress"
    failed = json.loads(fast_json.encode(failed_response(partial, InternalError("It stopped."))))
    assert (failed["status"], failed["error"]) == ("failed", {"code": "server_error", "message": "It stopped."})
    cancelled = json.loads(fast_json.encode(cancelled_response(partial)))
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    for document in (failed, cancelled):
        assert [item.get("status") for item in document["output"]] == [None, "incomplete"]
        assert document["output"][1]["content"][0]["text"] == "Hel"
        SdkResponse.model_validate(document)


def test_the_status_of_an_answer() -> None:
    assert status_of(fold(TextDelta("a"))) == "in_progress"
    assert status_of(fold(TurnFinished("stop"))) == "completed"
    assert status_of(fold(TurnFinished("length"))) == "incomplete"
    assert status_of(fold(TurnFailed(StreamCut("Cut.")))) == "failed"


def test_a_background_response_begins_in_the_queue() -> None:
    assert begin(background=True).status == "queued"
    assert begin().status == "in_progress"


@pytest.mark.parametrize(
    ("item_id", "response"),
    [
        ("msg_1", "resp_1"),
        ("fc_1_0", "resp_1"),
        ("ctc_1_12", "resp_1"),
        ("rs_1", None),
        ("fc_1", None),
        ("fc__0", None),
        ("fc_1_in0", None),
        ("ctc_1_", None),
        ("call_1_0", None),
        ("", None),
    ],
)
def test_the_id_of_a_message_or_call_leads_to_its_response(item_id: str, response: str | None) -> None:
    assert response_of_item(item_id) == response


def test_calls_follow_the_message() -> None:
    document = ended(TextDelta("Hm."), *events_of_calls(WEATHER, PATCH), TurnFinished("tool_calls", Usage(9, 2, 11)))
    assert document["status"] == "completed"
    assert document["output"][1:] == [
        {
            "id": "fc_1_0",
            "type": "function_call",
            "status": "completed",
            "arguments": '{"city": "Paris"}',
            "call_id": "call_a",
            "name": "get_weather",
        },
        {
            "id": "ctc_1_1",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_c",
            "input": PATCH.arguments,
            "name": "apply_patch",
        },
    ]
    SdkResponse.model_validate(document)
    assert [item["type"] for item in ended(*events_of_calls(TIME), TurnFinished("tool_calls"))["output"]] == [
        "function_call"
    ]


def test_a_call_of_a_tool_in_a_namespace() -> None:
    call = ToolCall("call_n", "agents.spawn", "{}")
    (item,) = ended(*events_of_calls(call), TurnFinished("tool_calls"))["output"]
    assert (item["name"], item["namespace"]) == ("spawn", "agents")


def test_only_the_open_call_of_a_cut_answer_is_incomplete() -> None:
    document = ended(
        TextDelta("Hm."), *events_of_call(TIME), *events_of_call(WEATHER, 1)[:-2], TurnFinished("length", Usage())
    )
    assert [item["status"] for item in document["output"]] == ["completed", "completed", "incomplete"]


def test_a_refusal_is_a_part_of_the_message() -> None:
    document = ended(RefusalDelta("I cannot."), TurnFinished("stop", Usage()))
    assert document["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    SdkResponse.model_validate(document)


def test_missing_usage_is_an_estimate_at_the_end() -> None:
    answer = fold(TextDelta("Hello."), TurnFinished("stop"))
    whole = response_object(begin(), answer, IDS, status="completed", completed_at=1, prompt_characters=9)
    document = json.loads(fast_json.encode(whole))
    assert (document["usage"]["input_tokens"], document["usage"]["output_tokens"]) == (3, 2)
    assert document["dify"]["usage_estimated"] is True
    failed = ended(TextDelta("Hel"), TurnFailed(StreamCut("Cut.")))
    assert failed["usage"] is None
    assert "usage_estimated" not in failed["dify"]


@pytest.mark.parametrize(("given", "strict"), [({}, True), ({"strict": None}, True), ({"strict": False}, False)])
def test_function_tools_are_repeated_with_all_keys(given: dict[str, Any], strict: bool) -> None:
    (tool,) = ended(TurnFinished("stop"), tools=[{"name": "f", "type": "function", **given}])["tools"]
    assert list(tool.items()) == [
        ("type", "function"),
        ("description", None),
        ("name", "f"),
        ("parameters", None),
        ("strict", strict),
    ]


def test_links_to_files_are_annotated_where_they_are() -> None:
    answer = Answer()
    answer.add([TextDelta("see http://x/a.png"), FileProduced("http://x/a.png", "image", linked=True)])
    answer.add([FileProduced("http://x/b.pdf", "document", "b.pdf", linked=True)])
    annotations = url_citation_annotations(answer, answer.text)
    assert [(one.url, one.title, one.start_index, one.end_index) for one in annotations] == [
        ("http://x/a.png", "image", 4, 18)
    ]
