"""Bodies that clients send, from the SDKs' types and recorded requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import json
from openai.types.responses import Response as SdkResponse
from openai.types.responses import (
    ResponseCustomToolCallInputDeltaEvent,
    ResponseCustomToolCallInputDoneEvent,
    ResponseCustomToolCallItem,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCallItem,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseRefusalDeltaEvent,
    ResponseRefusalDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response_output_text import AnnotationURLCitation

from openai_dify_proxy.wire.openai import responses
from openai_dify_proxy.wire.openai.responses import (
    CHAT_OR_INPUT_REQUEST,
    ITEM_TEXT,
    RESPONSES_REQUEST,
    ConversationName,
    InputItem,
    OutputItem,
)


def test_items_of_every_kind_are_accepted() -> None:
    body = {
        "model": "m",
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "3"}]},
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "of_tomorrow", "content": {"a": 1}, "output": 7},
        ],
        "include": ["reasoning.encrypted_content"],
        "client_metadata": {"x": 1},
        "tools": [{"type": "web_search"}, {"type": "namespace", "tools": []}],
        "stream": True,
    }
    request = RESPONSES_REQUEST.decode(json.encode(body))
    assert isinstance(request.input, list)
    assert [(item.type, item.role) for item in request.input] == [
        (None, "user"),
        ("message", "developer"),
        ("function_call", None),
        ("function_call_output", None),
        ("computer_call_output", None),
        ("reasoning", None),
        ("of_tomorrow", None),
    ]
    parts = ITEM_TEXT.decode(request.input[3].output)
    assert isinstance(parts, list)
    assert parts[0].text == "3"
    assert ITEM_TEXT.decode(InputItem().content) is None
    assert request.tools == body["tools"]


@pytest.mark.parametrize(("conversation", "name"), [(None, None), ("conv_1", "conv_1"), ({"id": "conv_2"}, "conv_2")])
def test_a_conversation_is_named_by_a_string_or_an_object(conversation: Any, name: str | None) -> None:
    assert RESPONSES_REQUEST.decode(json.encode({"conversation": conversation})).conversation_name == name


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": 7}, "$.input"),
        ({"input": [7]}, "$.input[0]"),
        ({"input": [{"role": 7}]}, "$.input[0].role"),
        ({"conversation": {}}, "$.conversation"),
        ({"tools": {}}, "$.tools"),
        ({"temperature": "hot"}, "$.temperature"),
    ],
)
def test_the_fault_of_a_body_is_named(body: Any, path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        RESPONSES_REQUEST.decode(json.encode(body))
    assert path in str(caught.value)


def test_a_chat_may_be_the_input() -> None:
    request = CHAT_OR_INPUT_REQUEST.decode(b'{"model":"m","input":[{"role":"user","content":"Hi"}],"stream":true}')
    assert request.messages is msgspec.UNSET
    assert isinstance(request.input, list)
    assert CHAT_OR_INPUT_REQUEST.decode(b'{"messages":[{"role":"user","content":"Hi"}]}').input is None


OPEN_RESPONSES_ONLY = {"frequency_penalty", "presence_penalty", "store"}
"""Fields that the Open Responses specification requires and the SDK does not have."""

CALL_FIELDS = {"arguments", "call_id", "input", "name", "namespace"}


@pytest.mark.parametrize(
    ("ours", "theirs", "additional"),
    [
        (responses.Response, SdkResponse, OPEN_RESPONSES_ONLY | {"dify"}),
        (responses.ResponseUsage, ResponseUsage, set()),
        (responses.OutputText, ResponseOutputText, set()),
        (responses.OutputRefusal, ResponseOutputRefusal, set()),
        (responses.UrlCitationAnnotation, AnnotationURLCitation, set()),
        (OutputItem, ResponseOutputMessage, {"summary", *CALL_FIELDS}),
        (OutputItem, ResponseReasoningItem, {"role", *CALL_FIELDS}),
        (OutputItem, ResponseFunctionToolCallItem, {"content", "role", "summary", "input"}),
        (OutputItem, ResponseCustomToolCallItem, {"content", "role", "summary", "arguments"}),
        (responses.CallDeltaEvent, ResponseFunctionCallArgumentsDeltaEvent, set()),
        (responses.CallDeltaEvent, ResponseCustomToolCallInputDeltaEvent, set()),
        (responses.ArgumentsDoneEvent, ResponseFunctionCallArgumentsDoneEvent, set()),
        (responses.CustomInputDoneEvent, ResponseCustomToolCallInputDoneEvent, set()),
        (responses.RefusalDeltaEvent, ResponseRefusalDeltaEvent, set()),
        (responses.RefusalDoneEvent, ResponseRefusalDoneEvent, set()),
    ],
)
def test_fields_are_those_of_the_sdk(ours: type[msgspec.Struct], theirs: Any, additional: set[str]) -> None:
    tag = ours.__struct_config__.tag_field
    names = {field.encode_name for field in msgspec.structs.fields(ours)} | ({tag} if tag else set())
    assert names - additional <= set(theirs.model_fields)
    assert {name for name, field in theirs.model_fields.items() if field.is_required()} <= names


def test_events_have_the_keys_that_the_sdk_requires() -> None:
    """They are in the order of OpenAI's streams, which begin with the type and the number."""
    assert [field.name for field in msgspec.structs.fields(responses.OutputTextDeltaEvent)] == [
        "type",
        "sequence_number",
        "item_id",
        "output_index",
        "content_index",
        "delta",
        "logprobs",
    ]


def test_a_response_can_be_decoded_again() -> None:
    """Stored responses are returned again."""
    body = (
        b'{"id":"resp_1","object":"response","created_at":1,"status":"completed","background":false,"completed_at":2,'
        b'"conversation":{"id":"conv_1"},"error":null,"frequency_penalty":0.0,"incomplete_details":null,'
        b'"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"m","output":[{"id":"rs_1",'
        b'"type":"reasoning","summary":[{"type":"summary_text","text":"Hm."}]},{"id":"msg_1","type":"message",'
        b'"status":"completed","content":[{"type":"output_text","annotations":[{"type":"url_citation","start_index":0,'
        b'"end_index":2,"url":"http://a","title":"A"}],"logprobs":[],"text":"Hi"}],"role":"assistant"}],'
        b'"parallel_tool_calls":true,"presence_penalty":0.0,"previous_response_id":null,"prompt_cache_key":null,'
        b'"prompt_cache_retention":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,'
        b'"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":"text"}},'
        b'"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":null,'
        b'"user":null,"metadata":{},"dify":{"conversation_id":"c"}}'
    )
    response = responses.RESPONSE.decode(body)
    assert response.conversation == ConversationName("conv_1")
    assert json.encode(response) == body
