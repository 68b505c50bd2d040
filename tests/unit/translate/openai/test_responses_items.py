"""The input items of ``GET /v1/responses/{id}/input_items``, and the text of a response."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from openai_dify_proxy.events import ReasoningDelta, RefusalDelta, TextDelta, TurnFinished, TurnIds
from openai_dify_proxy.translate.openai.responses_answers import begin_response
from openai_dify_proxy.translate.openai.responses_items import (
    body_without_files,
    read_input_items,
    reply_of_response,
    text_of_response,
)
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.openai.responses import RESPONSES_REQUEST
from tests.tool_events import PATCH, WEATHER, events_of_calls

SDK_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
TEXT = {"type": "input_text", "text": "hi"}


def items(**body: Any) -> list[dict[str, Any]]:
    return read_input_items(json.encode({"model": "m", **body}), "resp_12")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"input": "hi"},
            [{"id": "msg_12_in0", "type": "message", "role": "user", "content": [TEXT], "status": "completed"}],
        ),
        (
            {"input": [{"role": "developer", "content": "hi"}]},
            [{"id": "msg_12_in0", "type": "message", "role": "developer", "content": [TEXT], "status": "completed"}],
        ),
        (
            {
                "input": [
                    {"type": "message", "role": "user", "content": [TEXT], "id": "msg_own", "status": "incomplete"}
                ]
            },
            [{"id": "msg_own", "type": "message", "role": "user", "content": [TEXT], "status": "incomplete"}],
        ),
        (
            {"input": [{"role": "assistant", "content": "ho"}]},
            [
                {
                    "id": "msg_12_in0",
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "ho", "annotations": []}],
                    "status": "completed",
                }
            ],
        ),
        ({"input": [CALL]}, [CALL]),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": [TEXT]},
                    {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
                    {"type": "custom_tool_call_output", "call_id": "d", "output": "y", "status": None},
                    {"type": "reasoning", "summary": []},
                ]
            },
            [
                CALL | {"id": "fc_12_in0"},
                {
                    "id": "fco_12_in1",
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [TEXT],
                    "status": "completed",
                },
                {
                    "id": "ctc_12_in2",
                    "type": "custom_tool_call",
                    "call_id": "d",
                    "name": "g",
                    "input": "x",
                    "status": "completed",
                },
                {
                    "id": "ctco_12_in3",
                    "type": "custom_tool_call_output",
                    "call_id": "d",
                    "output": "y",
                    "status": "completed",
                },
                {"id": "rs_12_in4", "type": "reasoning", "summary": []},
            ],
        ),
        (
            {"messages": [{"role": "user", "content": "hi", "name": None}]},
            [{"id": "msg_12_in0", "type": "message", "role": "user", "content": [TEXT], "status": "completed"}],
        ),
        ({"instructions": "Only these."}, []),
        ({"input": []}, []),
    ],
)
def test_items_are_listed_as_they_were_sent(body: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    listed = items(**body)
    assert listed == expected
    for item in listed:
        SDK_ITEM.validate_python(item)


def test_each_item_has_a_different_id() -> None:
    listed = items(input=[{"role": "user", "content": "a"}, CALL, {"role": "user", "content": "b"}])
    assert [item["id"] for item in listed] == ["msg_12_in0", "fc_1", "msg_12_in2"]


def test_the_text_of_a_response_is_the_assistants_message() -> None:
    response = begin_response(RESPONSES_REQUEST.decode(b'{"input": "hi"}'), id="resp_12", created_at=1, model="m")
    encoder = ResponsesStreamEncoder(response, now=lambda: 2)
    encoder.encode([ReasoningDelta("Hm."), TextDelta("one "), TextDelta("two"), TurnFinished("stop")], TurnIds())
    assert text_of_response(encoder.response) == "one two"
    assert text_of_response(response) == ""


def test_the_reply_of_a_response_has_its_calls() -> None:
    response = begin_response(RESPONSES_REQUEST.decode(b'{"input": "hi"}'), id="resp_12", created_at=1, model="m")
    encoder = ResponsesStreamEncoder(response, now=lambda: 2)
    encoder.encode([TextDelta("Hm."), *events_of_calls(WEATHER, PATCH), TurnFinished("tool_calls")], TurnIds())
    assert reply_of_response(encoder.response) == encoder.reply == HistoryMessage("assistant", "Hm.", (WEATHER, PATCH))
    refused = ResponsesStreamEncoder(response, now=lambda: 2)
    refused.encode([RefusalDelta("I cannot."), TurnFinished("stop")], TurnIds())
    assert reply_of_response(refused.response) == HistoryMessage("assistant", "I cannot.")


def test_items_that_cannot_be_decoded_are_skipped() -> None:
    body = (
        b'{"input":[{"role":"user","content":"hi"},{"type":"reasoning","weight":1e999},{"role":"user","content":"ho"}]}'
    )
    assert [item["content"][0]["text"] for item in read_input_items(body, "resp_12")] == ["hi", "ho"]


def test_contents_of_files_are_left_out_and_urls_stay() -> None:
    uri = "data:image/png;base64,AA=="
    parts = [
        {"type": "input_text", "text": "data:text"},
        {"type": "input_image", "image_url": uri},
        {"type": "input_image", "image_url": "HTTPS://example.org/a.png"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_data": uri, "filename": "a.png"},
        {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        "odd",
    ]
    kept = [
        {"type": "input_text", "text": "data:text"},
        {"type": "input_image", "image_url": None},
        {"type": "input_image", "image_url": "HTTPS://example.org/a.png"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_data": None, "filename": "a.png"},
        {"type": "image_url", "image_url": {"url": None, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": None, "format": "wav"}},
        "odd",
    ]
    for field in ("input", "messages"):
        body = body_without_files(json.encode({"model": "m", field: [{"role": "user", "content": parts}]}))
        assert json.decode(body)[field] == [{"role": "user", "content": kept}]


def test_a_body_without_items_stays() -> None:
    assert json.decode(body_without_files(b'{"input":"hi"}'))["input"] == "hi"
