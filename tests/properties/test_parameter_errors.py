"""For any value in any field, an error names the field in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.chat_request import make_turn, read_completion_request
from openai_dify_proxy.translate.openai.conversation_items import check_metadata
from openai_dify_proxy.translate.openai.parameter_errors import unreadable_request
from openai_dify_proxy.translate.openai.responses_request import (
    messages_of_input,
    read_chat_or_input_request,
    read_responses_messages,
)
from openai_dify_proxy.translate.openai.tool_request import read_responses_output
from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST
from openai_dify_proxy.wire.openai.conversations import CONVERSATION_REQUEST, ConversationRequest
from openai_dify_proxy.wire.openai.images import IMAGE_REQUEST
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST, RESPONSES_REQUEST, ResponsesRequest
from openai_dify_proxy.wire.reading import UNREADABLE

Json = Any

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300)
    | st.sampled_from(["user", "text", "human", "sk-0123456789abcdef", "app-" + "k" * 24, "Bearer 0123456789abcdef"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=80), inner, max_size=4),
    max_leaves=8,
)

PART = {"type": "text", "text": "Hi", "refusal": None}
MESSAGE = {"role": "user", "content": [PART]}
ITEM = {"type": "message", "role": "user", "id": "msg_1", "content": [PART], "output": "Hi"}
SHARED: dict[str, Json] = {
    "model": "m",
    "stream": False,
    "stream_options": {"include_usage": True},
    "n": 1,
    "stop": ["a"],
    "user": "u",
    "safety_identifier": "u",
    "metadata": {"a": "b", "conversation_id": "c", "dify_inputs": "{}"},
    "inputs": {},
    "conversation_id": "c",
}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CUSTOM = {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "a"}}}
SENT_CALLS = [
    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
]
CHAT = {
    **SHARED,
    "messages": [
        MESSAGE,
        {"role": "assistant", "content": None, "tool_calls": SENT_CALLS},
        {"role": "tool", "content": "1", "tool_call_id": "1"},
        {"role": "tool", "content": [PART], "tool_call_id": "2"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "custom", "custom": CUSTOM}, {"type": "mcp"}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "tool", "name": "f"}]},
    },
    "parallel_tool_calls": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
    "temperature": 1.5,
    "max_tokens": 5,
    "logit_bias": {"1": 1},
    "seed": 1,
}
LEGACY_CHAT = {
    **SHARED,
    "messages": [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ],
    "functions": [FUNCTION],
    "function_call": {"name": "f"},
}
CHAT_AS_INPUT = {**SHARED, "input": [ITEM], "instructions": "i"}
COMPLETION = {**SHARED, "prompt": ["Hi"], "best_of": 1, "logprobs": 1, "max_tokens": 1}
RESPONSE = {
    **SHARED,
    "input": [
        ITEM,
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "namespace": "n"},
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "1", "output": "Hi"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": [PART]},
        {"type": "item_reference", "id": "rs_1"},
    ],
    "instructions": "i",
    "conversation": {"id": "conv_1"},
    "store": True,
    "background": False,
    "tool_choice": {"type": "function", "name": "f"},
    "max_output_tokens": 16,
    "reasoning": {},
    "temperature": 1.0,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    "tools": [{"type": "function", **FUNCTION}, {"type": "namespace", "name": "n", "tools": [FUNCTION]}],
    "top_logprobs": 0,
    "truncation": "auto",
}
CONVERSATION: dict[str, Json] = {"items": [ITEM], "metadata": {"a": "b"}}
IMAGE = {
    "prompt": "a cat",
    "n": 1,
    "size": "auto",
    "output_compression": 9,
    "seed": 1,
    "stream": False,
    "images": [{"image_url": "http://a", "file_id": "f"}],
    "image": ["http://a"],
    "mask": {"image_url": "http://a"},
    "input": {},
    "return_ipfs": False,
}


def read_conversation(request: ConversationRequest) -> None:
    check_metadata(request.metadata or {})
    messages_of_input(request.items or [], field="items")


def read_response(request: ResponsesRequest) -> None:
    make_turn(request, read_responses_messages(request), requested=read_responses_output(request))


BODIES: dict[str, tuple[dict[str, Json], msgspec.json.Decoder[Any], Any]] = {
    "chat": (CHAT, CHAT_OR_INPUT_REQUEST, read_chat_or_input_request),
    "legacy chat": (LEGACY_CHAT, CHAT_OR_INPUT_REQUEST, read_chat_or_input_request),
    "chat as input": (CHAT_AS_INPUT, CHAT_OR_INPUT_REQUEST, read_chat_or_input_request),
    "completion": (COMPLETION, COMPLETION_REQUEST, read_completion_request),
    "response": (RESPONSE, RESPONSES_REQUEST, read_response),
    "conversation": (CONVERSATION, CONVERSATION_REQUEST, read_conversation),
    "image": (IMAGE, IMAGE_REQUEST, lambda request: request),
}

FOREIGN = re.compile(
    r"\b(?:str|int|int64|float|bool|dict|list|NoneType|None|Object|object at|enum|Expected `|msgspec|Traceback|"
    r"ValidationError|truncated|malformed)\b|`|\$[.\[]| \| |<class|_\w+Error"
)
"""Terms of Python and msgspec, which clients must not see."""

KEY = re.compile(r"0123456789|kkkkkk")


def places(value: Json, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for step, inner in steps for place in [(*path, step), *places(inner, (*path, step))]]


def replaced(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def without_quotes(message: str) -> str:
    """Remove quoted values and params, which may contain any words, from a message."""
    return re.sub(r"'.*'", "''", message, flags=re.DOTALL)


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_any_value_at_any_field(name: str, data: st.DataObject) -> None:
    body, decoder, read = BODIES[name]
    place = data.draw(st.sampled_from(places(body)))
    document = msgspec.json.encode(replaced(body, place, data.draw(json_values)))
    try:
        read(decoder.decode(document))
    except UNREADABLE as raised:
        error = unreadable_request(raised, document, decoder.type)
        assert error.param is not None
    except InvalidRequest as raised:
        error = raised
    else:
        return
    assert error.status == 400
    assert error.param is not None
    assert error.param.partition("[")[0].partition(".")[0] in body or error.param in ("messages", "input", "prompt")
    assert not FOREIGN.search(without_quotes(error.message)), error.message
    assert not KEY.search(error.message)
    assert not KEY.search(error.param)
    assert len(error.message) < 500
    assert error.message.endswith(".")


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_any_damage_to_the_bytes(name: str, data: st.DataObject) -> None:
    body, decoder, _ = BODIES[name]
    document = msgspec.json.encode(body)
    at = data.draw(st.integers(0, len(document)))
    until = data.draw(st.integers(at, len(document)))
    damaged = document[:at] + data.draw(st.binary(max_size=8)) + document[until:]
    try:
        decoder.decode(damaged)
    except UNREADABLE as raised:
        error = unreadable_request(raised, damaged, decoder.type)
        assert not FOREIGN.search(without_quotes(error.message)), error.message
        assert error.message.endswith(".")
        assert len(error.message) < 500
