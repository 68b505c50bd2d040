from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import json

from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST, ChatCompletionRequest
from openai_dify_proxy.wire.openai.models import Model, ModelExtension, ModelList
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST


def read(**fields: Any) -> ChatCompletionRequest:
    return CHAT_OR_INPUT_REQUEST.decode(json.encode({"messages": [], **fields}))


def test_fields_that_the_proxy_does_not_support_are_skipped() -> None:
    request = read(
        model="gpt-4o",
        temperature=0.5,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": "u", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "audio": None, "refusal": None},
            {"role": "tool", "content": "t", "tool_call_id": "1"},
        ],
        reasoning_effort="high",
        thinking={"type": "enabled"},
    )
    assert request.model == "gpt-4o"
    assert isinstance(request.messages, list)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"include_usage": True}, True),
        ({"include_usage": True, "include_obfuscation": False}, True),
        ({"include_usage": False}, False),
        ({"include_usage": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_usage_is_sent_only_on_request(options: Any, wanted: bool) -> None:
    assert read(stream_options=options).wants_usage is wanted
    assert not read().wants_usage


# Invalid bodies, and the path of the fault.
FAULTS: dict[str, tuple[bytes, str]] = {
    "messages of another type": (b'{"messages":"Hi"}', "$.messages"),
    "an unknown role": (b'{"messages":[{"role":"robot","content":"Hi"}]}', "$.messages[0].role"),
    "content of another type": (b'{"messages":[{"role":"user","content":7}]}', "$.messages[0].content"),
    "a switch of another type": (b'{"messages":[],"stream":"yes"}', "$.stream"),
}


@pytest.mark.parametrize(("body", "path"), FAULTS.values(), ids=FAULTS)
def test_the_fault_of_a_body_is_named(body: bytes, path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        CHAT_OR_INPUT_REQUEST.decode(body)
    assert path in str(caught.value)


def test_a_legacy_prompt_may_have_any_type_that_openai_accepts() -> None:
    for prompt in ("Hi", ["a", "b"], [1, 2], [[1], [2]]):
        assert COMPLETION_REQUEST.decode(json.encode({"prompt": prompt})).prompt == prompt


def test_a_list_of_models_as_in_the_reference() -> None:
    extension = ModelExtension(name="Support", mode="chat")
    listed = ModelList(
        data=[
            Model(id="org/support", created=1, owned_by="dify", dify=extension),
            Model(id="b", created=2, owned_by="dify"),
        ]
    )
    assert json.decode(json.encode(listed)) == {
        "object": "list",
        "data": [
            {
                "id": "org/support",
                "object": "model",
                "created": 1,
                "owned_by": "dify",
                "type": "chat",
                "dify": {"name": "Support", "mode": "chat"},
            },
            {"id": "b", "object": "model", "created": 2, "owned_by": "dify", "type": "chat"},
        ],
    }
