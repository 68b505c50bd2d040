"""Translate Responses requests to turns, as documented in docs/apps.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.api.bodies import read_json
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.chat_request import make_turn
from openai_dify_proxy.translate.openai.responses_request import (
    MAX_REFERENCED_TEXT,
    MAX_REFERENCES,
    messages_of_input,
    read_chat_or_input_request,
    read_responses_messages,
    referenced_responses,
)
from openai_dify_proxy.translate.turn_request import CONTINUE, HistoryMessage, StoredHistory, ToolCall, TurnRequest
from openai_dify_proxy.wire.openai.responses import (
    CHAT_OR_INPUT_REQUEST,
    RESPONSES_REQUEST,
    InputItem,
    ResponsesRequest,
)

Item = dict[str, Any]


def read_responses_request(
    request: ResponsesRequest, replies: Mapping[str, HistoryMessage] | None = None
) -> TurnRequest:
    return make_turn(request, read_responses_messages(request, replies))


def read(items: Any = None, *, replies: dict[str, HistoryMessage] | None = None, **fields: Any) -> TurnRequest:
    body = fields if items is None else {"input": items, **fields}
    return read_responses_request(RESPONSES_REQUEST.decode(json.encode(body)), replies)


def chat(**fields: Any) -> TurnRequest:
    return read_chat_or_input_request(CHAT_OR_INPUT_REQUEST.decode(json.encode(fields)))


def user(content: Any) -> Item:
    return {"role": "user", "content": content}


def assistant(text: str) -> Item:
    """Return an assistant's message as a client sends it back."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def output(value: Any, kind: str = "function_call_output", call: str = "call-1") -> Item:
    return {"type": kind, "call_id": call, "output": value}


def result(text: str, attributes: str = ' name="f"') -> str:
    return f"<tool_result{attributes}>\n{text}\n</tool_result>"


RESULTS = result("2", ' name="g" call="2"') + "\n\n" + result("1", ' name="f" call="1"')
"""The results of two calls, out of order."""


def text(words: str) -> Item:
    return {"type": "input_text", "text": words}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call-1", "name": "f", "arguments": "{}"}
OTHER_CALL = {"type": "custom_tool_call", "call_id": "call-2", "name": "g", "input": "free text"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}

# Input; the question, the system message and the history.
QUESTIONS: dict[str, tuple[Any, str, str, list[tuple[str, str]]]] = {
    "a string": ("Hi", "Hi", "", []),
    "a message without a type": ([user("Hi")], "Hi", "", []),
    "parts": ([user([text("a"), text("b")])], "a\nb", "", []),
    "system and developer": (
        [
            {"role": "system", "content": "Be kind."},
            {"type": "message", "role": "developer", "content": "S."},
            user("Q"),
        ],
        "Q",
        "Be kind.\n\nS.",
        [],
    ),
    "an output that the client sends back": (
        [user("1 + 1?"), REASONING, assistant("2"), user("And 2 + 2?")],
        "And 2 + 2?",
        "",
        [("user", "1 + 1?"), ("assistant", "2")],
    ),
    "a refusal that the client sends back": (
        [user("a"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, user("b")],
        "b",
        "",
        [("user", "a"), ("assistant", "No.")],
    ),
    "reasoning within a reply": (
        [user("a"), assistant("<think>hm</think>\n\nb"), user("c")],
        "c",
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "a tool's output": ([user("a"), CALL, output("3")], result("3"), "", [("user", "a"), ("assistant", "")]),
    "a tool's output in parts": ([CALL, output([text("3"), text("4")])], result("3\n4"), "", [("assistant", "")]),
    "a custom tool's output": (
        [OTHER_CALL, output("3", "custom_tool_call_output", "call-2")],
        result("3", ' name="g"'),
        "",
        [("assistant", "")],
    ),
    "an answer with calls, and their outputs": (
        [user("a"), REASONING, assistant("b"), CALL, OTHER_CALL, output("2", call="call-2"), output("1"), user("c")],
        RESULTS + "\n\nc",
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "a text behind its calls": ([CALL, assistant("b"), output("3")], result("3"), "", [("assistant", "b")]),
    "an output after a user's message": (
        [CALL, user("a"), output("3")],
        "a\n\n" + result("3"),
        "",
        [("assistant", "")],
    ),
    "two answers": (
        [CALL, output("3"), assistant("b"), OTHER_CALL, output("4", call="call-2")],
        result("4", ' name="g"'),
        "",
        [("assistant", ""), ("tool", "3"), ("assistant", "b")],
    ),
    "calls of hosted tools": (
        [
            user("a"),
            {"type": "local_shell_call", "call_id": "l", "action": {}},
            {"type": "web_search_call", "id": "ws_1"},
        ],
        "a",
        "",
        [],
    ),
    "other outputs": ([user("a"), output({"type": "computer_screenshot"}, "computer_call_output")], "a", "", []),
    "unknown kinds": ([user("a"), {"type": "of_tomorrow", "content": 7}], "a", "", []),
    "an unknown kind with a role": ([{"type": "of_tomorrow", **user("a")}], "a", "", []),
    "a reference to reasoning": ([user("a"), {"type": "item_reference", "id": "rs_1"}, user("b")], "a\n\nb", "", []),
    "content that is null": (
        [user("a"), {"role": "assistant", "content": None}, user("b")],
        "b",
        "",
        [("user", "a"), ("assistant", "")],
    ),
}


@pytest.mark.parametrize(("items", "question", "system", "history"), QUESTIONS.values(), ids=QUESTIONS)
def test_question_system_message_and_history(
    items: Any, question: str, system: str, history: list[tuple[str, str]]
) -> None:
    turn = read(items)
    assert (turn.question, turn.system) == (question, system)
    assert [(message.role, message.text) for message in turn.history] == history


def test_instructions_come_before_other_system_messages() -> None:
    assert read([{"role": "developer", "content": "b"}, user("Hi")], instructions="a").system == "a\n\nb"
    assert read(messages=[{"role": "system", "content": "b"}, user("Hi")], instructions="a").system == "a\n\nb"
    assert read(instructions="Say hi.").question == "Say hi."


def test_messages_in_place_of_input_are_a_chat() -> None:
    parts = [{"type": "text", "text": "Hi"}]
    turn = read(messages=[{"role": "assistant", "content": "a"}, {"role": "user", "content": parts}])
    assert turn.question == "Hi"
    assert [message.text for message in turn.history] == ["a"]
    assert read("Hi", messages=[{"role": "user", "content": "no"}]).question == "Hi"


def test_input_in_place_of_messages_is_a_chat() -> None:
    turn = chat(input=[user("a"), assistant("b"), user("c")], instructions="s", user="ann", stream=True)
    assert (turn.question, turn.system, turn.end_user) == ("c", "s", "ann")
    assert [message.text for message in turn.history] == ["a", "b"]
    assert chat(input="Hi").question == "Hi"
    assert chat(messages=[{"role": "user", "content": "m"}], input="Hi").question == "m"


def test_the_end_user_and_the_inputs() -> None:
    turn = read(
        "Hi", user="old", safety_identifier="new", metadata={"lang": "de", "conversation_id": "c-1"}, inputs={"n": 3}
    )
    assert turn.end_user == "new"
    assert turn.conversation_id == "c-1"
    assert turn.inputs == {"lang": "de", "n": 3}
    assert read("Hi", conversation_id="c-2").conversation_id == "c-2"


def test_fields_without_effect_are_accepted() -> None:
    fields: dict[str, Any] = {
        "background": True,
        "conversation": "conv_1",
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 16,
        "previous_response_id": None,
        "reasoning": {"effort": "high"},
        "store": None,
        "stream_options": {"include_obfuscation": False},
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "auto",
    }
    assert read("Hi", **fields) == read("Hi")
    assert read("Hi", previous_response_id="resp_1", store=False) == read("Hi")


def test_references_are_followed() -> None:
    items = [
        user("a"),
        {"type": "item_reference", "id": "msg_1"},
        user("b"),
        {"id": "msg_2"},
        {"id": "rs_2"},
        user("c"),
    ]
    body = json.encode({"input": [*items, {"type": "item_reference", "id": "msg_1"}, user("d")]})
    request = RESPONSES_REQUEST.decode(body)
    assert referenced_responses(request) == ["resp_1", "resp_2"]
    turn = read_responses_request(
        request, {"resp_1": HistoryMessage("assistant", "A"), "resp_2": HistoryMessage("assistant", "B")}
    )
    assert [message.text for message in turn.history] == ["a", "A", "b", "B", "c", "A"]
    assert referenced_responses(RESPONSES_REQUEST.decode(b'{"input":"msg_1"}')) == []


# Rejected bodies, and the param and code of the error.
REFUSED: dict[str, tuple[Item, str, str | None]] = {
    "nothing": ({}, "input", "missing_required_parameter"),
    "no items": ({"input": []}, "input", "missing_required_parameter"),
    "no text": ({"input": [REASONING]}, "input", None),
    "no text in messages": ({"messages": [{"role": "user", "content": ""}]}, "messages", None),
    "an image of the system": (
        {"input": [{"role": "system", "content": [text("b"), IMAGE]}]},
        "input[0].content[1]",
        "unsupported_content",
    ),
    "a tool's image": (
        {"input": [output([{"type": "input_image", "image_url": "x"}])]},
        "input[0].output[0]",
        "invalid_value",
    ),
    "an image in messages": (
        {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]},
        "messages[0].content[0]",
        "invalid_value",
    ),
    "no role": ({"input": [{"content": "Hi"}]}, "input[0].role", "missing_required_parameter"),
    "no role of a message": (
        {"input": [{"type": "message", "content": "Hi"}]},
        "input[0].role",
        "missing_required_parameter",
    ),
    "an unknown role": ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role", "invalid_value"),
    "content of another form": ({"input": [user("a"), user(7)]}, "input[1].content", "invalid_type"),
    "a part of another form": (
        {"input": [user([{"type": "input_text", "text": 7}])]},
        "input[0].content[0].text",
        "invalid_type",
    ),
    "an output of another form": ({"input": [output({"a": 1})]}, "input[0].output", "invalid_type"),
    "an unknown reference": ({"input": [{"type": "item_reference", "id": "msg_9"}]}, "input[0].id", None),
    "a reference to a call": ({"input": [{"type": "item_reference", "id": "fc_9"}]}, "input[0].id", None),
    "a reference to nothing": ({"input": [{"type": "item_reference"}]}, "input[0].id", "missing_required_parameter"),
    "an output without its call": ({"input": [user("a"), output("3")]}, "input", None),
    "a call without its output": ({"input": [user("a"), CALL]}, "input", None),
    "a custom call without its output": ({"input": [user("a"), OTHER_CALL, user("b")]}, "input", None),
    "an output without a call id": (
        {"input": [{"type": "function_call_output", "output": "3"}]},
        "input[0].call_id",
        "missing_required_parameter",
    ),
    "a call without an id": (
        {"input": [{"type": "function_call", "name": "f"}]},
        "input[0].call_id",
        "missing_required_parameter",
    ),
    "a call without a name": (
        {"input": [{"type": "function_call", "call_id": "c"}]},
        "input[0].name",
        "missing_required_parameter",
    ),
    "arguments that are no text": (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": 7}]},
        "input[0].arguments",
        "invalid_type",
    ),
    "a call that the response did not make": (
        {"input": [{"type": "item_reference", "id": "fc_1_0"}]},
        "input[0].id",
        None,
    ),
    "a conversation with another id": ({"input": "Hi", "conversation": "foo"}, "conversation", "invalid_value"),
    "few tokens": ({"input": "Hi", "max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
    "too hot": ({"input": "Hi", "temperature": 2.1}, "temperature", "decimal_above_max_value"),
    "many probabilities": ({"input": "Hi", "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    "both a response and a conversation to continue": (
        {"input": "Hi", "previous_response_id": "resp_1", "conversation": {"id": "conv_1"}},
        "previous_response_id",
        "mutually_exclusive_parameters",
    ),
    "a background response that is not stored": (
        {"input": "Hi", "background": True, "store": False},
        "background",
        None,
    ),
    "several answers": ({"input": "Hi", "n": 2}, "n", "unsupported_parameter"),
    "a long name": ({"input": "Hi", "model": "m" * 257}, "model", "string_above_max_length"),
}


@pytest.mark.parametrize(("body", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_rejected_requests_name_the_param(body: Item, param: str, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_responses_request(read_json(json.encode(body), RESPONSES_REQUEST))
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"input": [user([{"type": "input_image"}])]}, "input[0].content[0].image_url"),
        ({"input": [CALL]}, "input"),
        ({"input": "Hi", "tool_choice": "required"}, "tool_choice"),
        ({"input": "Hi", "n": 2}, "n"),
    ],
)
def test_a_chat_as_input_is_validated_too(body: Item, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**body)
    assert caught.value.param == param


def test_content_that_is_not_utf8_is_rejected() -> None:
    body = b'{"input":[{"role":"user","content":"\xff"}]}'
    with pytest.raises(InvalidRequest) as caught:
        read_responses_messages(read_json(body, RESPONSES_REQUEST))
    assert caught.value.param == "input[0].content"


def test_an_unknown_role_lists_the_roles() -> None:
    with pytest.raises(InvalidRequest) as caught:
        messages_of_input([InputItem(role="human")], field="items")
    assert caught.value.message == (
        "Invalid value: 'human'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' and "
        "'function'."
    )
    assert caught.value.param == "items[0].role"


def test_references_to_calls_are_followed() -> None:
    calls = (ToolCall("c-1", "f", "{}"), ToolCall("c-2", "g", "x", custom=True))
    replies = {"resp_1": HistoryMessage("assistant", "A", calls)}
    references = [{"type": "item_reference", "id": name} for name in ("rs_1", "msg_1", "fc_1_0", "ctc_1_1")]
    turn = read([user("a"), *references, output("2", call="c-2"), output("1", call="c-1")], replies=replies)
    assert turn.history == (HistoryMessage("user", "a"), replies["resp_1"])
    for index in ("2", "9" * 5000):
        with pytest.raises(InvalidRequest, match="not found"):
            read([user("a"), {"type": "item_reference", "id": f"fc_1_{index}"}], replies=replies)


def test_calls_keep_their_namespace_and_their_arguments() -> None:
    call = {**CALL, "namespace": "agents", "arguments": {"a": 1}}
    turn = read([call, output("3")])
    assert turn.history[0].calls == (ToolCall("call-1", "agents.f", '{"a":1}'),)


def test_the_output_of_a_stored_call() -> None:
    stored = StoredHistory("resp_1", calls=(ToolCall("call-1", "f", "{}"), ToolCall("call-2", "g", "x", custom=True)))

    def continued(*items: Item, **fields: Any) -> TurnRequest:
        request = RESPONSES_REQUEST.decode(json.encode({"input": items, "previous_response_id": "resp_1", **fields}))
        return make_turn(request, read_responses_messages(request), stored=stored)

    turn = continued(output("2", "custom_tool_call_output", "call-2"), output("1"), user("b"))
    assert turn.question == (RESULTS + "\n\nb")
    for items, words in (
        ([user("a")], "No tool output found for function call call-1."),
        ([output("1")], "No tool output found for custom tool call call-2."),
        ([output("1", call="c-9")], "No tool call found for function call output with call_id c-9."),
        ([], "No tool output found for function call call-1."),
    ):
        with pytest.raises(InvalidRequest) as caught:
            continued(*items)
        assert (caught.value.message, caught.value.param) == (words, "input")


def test_a_request_without_input_continues() -> None:
    for fields in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1", "input": []}):
        request = RESPONSES_REQUEST.decode(json.encode({"instructions": "Be kind.", **fields}))
        turn = make_turn(request, read_responses_messages(request), stored=StoredHistory("x"))
        assert (turn.question, turn.system, turn.history) == (CONTINUE, "Be kind.", ())


def test_the_text_of_all_references_is_limited() -> None:
    replies = {"resp_1": HistoryMessage("assistant", "x" * (MAX_REFERENCED_TEXT // 4))}
    references = [{"type": "item_reference", "id": "msg_1"}] * 4
    assert len(read([*references, user("a")], replies=replies).history) == 4
    with pytest.raises(InvalidRequest, match="more than 8388608 characters") as rejected:
        read([*references, {"type": "item_reference", "id": "msg_1"}, user("a")], replies=replies)
    assert rejected.value.param == "input"


def test_the_number_of_referenced_responses_is_limited() -> None:
    items = [InputItem(type="item_reference", id=f"msg_{number}") for number in range(MAX_REFERENCES)]
    assert len(referenced_responses(ResponsesRequest(input=[*items, *items]))) == MAX_REFERENCES
    with pytest.raises(InvalidRequest, match="more than 1000 responses"):
        referenced_responses(ResponsesRequest(input=[*items, InputItem(type="item_reference", id="msg_x")]))
