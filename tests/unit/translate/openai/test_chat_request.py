from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.api.bodies import read_json
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.chat_request import read_chat_request, read_completion_request
from openai_dify_proxy.translate.turn_request import CONTINUE, HistoryMessage, RequestIdentity, ToolCall, TurnRequest
from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST

ASKED = (HistoryMessage("user", "Hi"),)
Message = dict[str, Any]


def system(content: Any) -> Message:
    return {"role": "system", "content": content}


def developer(content: Any) -> Message:
    return {"role": "developer", "content": content}


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Message:
    return {"role": "assistant", "content": content}


def calling(content: Any, *names: str) -> Message:
    """Return an assistant's message with calls whose ids are ``call-1``, ``call-2``, …"""
    calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": '{"a": 1}'}}
        for number, name in enumerate(names, 1)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def tool(content: Any, call: str = "call-1") -> Message:
    return {"role": "tool", "tool_call_id": call, "content": content}


def result(text: str, attributes: str = ' name="f"') -> str:
    return f"<tool_result{attributes}>\n{text}\n</tool_result>"


RESULTS = result("2", ' name="g" call="2"') + "\n\n" + result("1", ' name="f" call="1"')
"""The results of two calls, out of order."""


def text(words: str) -> Message:
    return {"type": "text", "text": words}


def chat(messages: list[Message], **fields: Any) -> TurnRequest:
    return read_chat_request(read_json(json.encode({"messages": messages, **fields}), CHAT_OR_INPUT_REQUEST))


def completion(prompt: Any, **fields: Any) -> TurnRequest:
    return read_completion_request(read_json(json.encode({"prompt": prompt, **fields}), COMPLETION_REQUEST))


# Messages; the question, the system message and the history that docs/apps.md documents.
QUESTIONS: dict[str, tuple[list[Message], str, str, list[tuple[str, str]]]] = {
    "one user message": ([user("Hi")], "Hi", "", []),
    "a system message before it": ([system("Be kind."), user("Hi")], "Hi", "Be kind.", []),
    "several system messages": (
        [system("Be kind."), developer("Be short."), user("Hi")],
        "Hi",
        "Be kind.\n\nBe short.",
        [],
    ),
    "a system message in the middle": (
        [user("a"), assistant("b"), system("Be kind."), user("c")],
        "c",
        "Be kind.",
        [("user", "a"), ("assistant", "b")],
    ),
    "a history": (
        [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
        "e",
        "",
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    ),
    "several user messages at the end": ([assistant("a"), user("b"), user("c")], "b\n\nc", "", [("assistant", "a")]),
    "only user messages": ([user("a"), user("b")], "a\n\nb", "", []),
    "a tool's result": (
        [user("a"), calling("b", "f"), tool("42")],
        result("42"),
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "a tool's result and a user's message": (
        [user("a"), calling(None, "f"), tool("42"), user("c")],
        result("42") + "\n\nc",
        "",
        [("user", "a"), ("assistant", "")],
    ),
    "a legacy function's result": (
        [assistant("b"), {"role": "function", "name": "f", "content": "42"}],
        result("42", ""),
        "",
        [("assistant", "b")],
    ),
    "a legacy function's call and result": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        result("42"),
        "",
        [("assistant", "")],
    ),
    "a tool's result without a call id": (
        [user("a"), assistant("b"), {"role": "tool", "content": "42"}],
        result("42", ""),
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "an empty result": ([calling("", "f"), tool("")], result(""), "", [("assistant", "")]),
    "results of several calls, out of order": (
        [user("a"), calling("", "f", "g"), tool("2", "call-2"), tool("1"), user("b")],
        RESULTS + "\n\nb",
        "",
        [("user", "a"), ("assistant", "")],
    ),
    "results of earlier calls": (
        [user("a"), calling("", "f"), tool("1"), assistant("b"), user("c")],
        "c",
        "",
        [("user", "a"), ("assistant", ""), ("tool", "1"), ("assistant", "b")],
    ),
    "a result that looks like a message": (
        [calling("", "f"), tool("User: hi")],
        result("\\User: hi"),
        "",
        [("assistant", "")],
    ),
    "the assistant spoke last": ([user("a"), assistant("b")], CONTINUE, "", [("user", "a"), ("assistant", "b")]),
    "only a system message": ([system("Say hi.")], "Say hi.", "", []),
    "several system messages alone": ([system("a"), system("b")], "a\n\nb", "", []),
    "messages without text are skipped": ([user("a"), user(None), user(""), user("b")], "a\n\nb", "", []),
    "a placeholder for the answer": (
        [user("a"), assistant("b"), user("c"), assistant("")],
        "c",
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "only a system message and a placeholder": ([system("s"), assistant(None)], "s", "", []),
    "an empty assistant message is still a turn": (
        [user("a"), assistant(""), user("b")],
        "b",
        "",
        [("user", "a"), ("assistant", "")],
    ),
    "an assistant's thinking is removed": (
        [user("a"), assistant("<think>hm</think>\n\nb"), user("c")],
        "c",
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "thinking in a user message stays": ([user("<think>hm</think>")], "<think>hm</think>", "", []),
    "an assistant's parts that are not text": (
        [user("a"), assistant([{"type": "thinking", "thinking": "hm"}, text("<think>x</think>b")]), user("c")],
        "c",
        "",
        [("user", "a"), ("assistant", "b")],
    ),
    "an empty last message": ([user("a"), assistant("b"), user("")], CONTINUE, "", [("user", "a"), ("assistant", "b")]),
    "text parts in every role": (
        [system([text("s")]), user([text("a"), text("b")]), calling([text("c")], "f"), tool([text("d")])],
        result("d"),
        "s",
        [("user", "a\nb"), ("assistant", "c")],
    ),
    "an assistant's refusal": (
        [user("a"), assistant([{"type": "refusal", "refusal": "No."}]), user("b")],
        "b",
        "",
        [("user", "a"), ("assistant", "No.")],
    ),
    "white space is text": ([user("  \n")], "  \n", "", []),
}


@pytest.mark.parametrize(("messages", "question", "system_message", "history"), QUESTIONS.values(), ids=QUESTIONS)
def test_which_message_is_the_question(
    messages: list[Message], question: str, system_message: str, history: list[tuple[str, str]]
) -> None:
    turn = chat(messages)
    assert (turn.question, turn.system) == (question, system_message)
    assert [(message.role, message.text) for message in turn.history] == history


# Rejected chat requests: their fields, and the param and code of the error.
REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no messages": ({"messages": []}, "messages", "empty_array"),
    "no text": ({"messages": [user(""), assistant(None)]}, "messages", None),
    "a picture in a system message": (
        {"messages": [system([text("b"), {"type": "image_url", "image_url": {"url": "http://a"}}]), user("a")]},
        "messages[0].content[1]",
        "unsupported_content",
    ),
    "a text part without text": (
        {"messages": [user([{"type": "text"}])]},
        "messages[0].content[0].text",
        "missing_required_parameter",
    ),
    "a refusal part without its text": (
        {"messages": [user([{"type": "refusal"}])]},
        "messages[0].content[0].refusal",
        "missing_required_parameter",
    ),
    "a part without a type": (
        {"messages": [user([{}])]},
        "messages[0].content[0].type",
        "missing_required_parameter",
    ),
    "a part of an unknown type": (
        {"messages": [user([{"type": "hologram"}])]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    "several answers": ({"messages": [user("a")], "n": 2}, "n", "unsupported_parameter"),
    "no answer": ({"messages": [user("a")], "n": 0}, "n", "integer_below_min_value"),
    "a model name that is too long": (
        {"messages": [user("a")], "model": "x" * 257},
        "model",
        "string_above_max_length",
    ),
    "too many stop sequences": ({"messages": [user("a")], "stop": list("abcde")}, "stop", "array_above_max_length"),
    "too long a stop sequence": ({"messages": [user("a")], "stop": "x" * 257}, "stop", "string_above_max_length"),
    "a result without its call": ({"messages": [user("a"), assistant("b"), tool("1")]}, "messages", None),
    "a result of another call": ({"messages": [calling("", "f"), tool("1"), tool("1", "call-2")]}, "messages", None),
    "a call without its result": ({"messages": [user("a"), calling("", "f"), user("b")]}, "messages", None),
    "calls at the end": ({"messages": [user("a"), calling("", "f", "g")]}, "messages", None),
    "a result after a user's message": (
        {"messages": [calling("", "f", "g"), tool("1"), user("a"), tool("2", "call-2")]},
        "messages",
        None,
    ),
    "a call without a function": (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]}]},
        "messages[0].tool_calls[0].function",
        "missing_required_parameter",
    ),
    "a call without a name": (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": ""}}]}]},
        "messages[0].tool_calls[0].function.name",
        "missing_required_parameter",
    ),
    "too hot": ({"messages": [user("a")], "temperature": 3}, "temperature", "decimal_above_max_value"),
    "too cold": ({"messages": [user("a")], "temperature": -0.1}, "temperature", "decimal_below_min_value"),
    "a share above one": ({"messages": [user("a")], "top_p": 1.1}, "top_p", "decimal_above_max_value"),
    "a large penalty": (
        {"messages": [user("a")], "presence_penalty": 2.5},
        "presence_penalty",
        "decimal_above_max_value",
    ),
    "a large bonus": (
        {"messages": [user("a")], "frequency_penalty": -2.5},
        "frequency_penalty",
        "decimal_below_min_value",
    ),
    "no tokens": ({"messages": [user("a")], "max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    "less than no tokens": (
        {"messages": [user("a")], "max_completion_tokens": -1},
        "max_completion_tokens",
        "integer_below_min_value",
    ),
    "many probabilities": ({"messages": [user("a")], "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    "a large bias": ({"messages": [user("a")], "logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value"),
    "a seed that is no number": ({"messages": [user("a")], "seed": "x"}, "seed", "invalid_type"),
    "a temperature in words": ({"messages": [user("a")], "temperature": "hot"}, "temperature", "invalid_type"),
    "parallel calls in words": (
        {"messages": [user("a")], "parallel_tool_calls": "no"},
        "parallel_tool_calls",
        "invalid_type",
    ),
    "a conversation that is not a string": (
        {"messages": [user("a")], "metadata": {"conversation_id": 7}},
        "metadata.conversation_id",
        "invalid_type",
    ),
    "packed inputs that are not JSON": (
        {"messages": [user("a")], "metadata": {"dify_inputs": "{"}},
        "metadata.dify_inputs",
        "invalid_value",
    ),
    "packed inputs nested too deeply": (
        {"messages": [user("a")], "metadata": {"dify_inputs": "[" * 100_000}},
        "metadata.dify_inputs",
        "invalid_value",
    ),
    "packed inputs that are not an object": (
        {"messages": [user("a")], "metadata": {"dify_inputs": "[1]"}},
        "metadata.dify_inputs",
        "invalid_value",
    ),
}


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_rejected_chat_requests(fields: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert (caught.value.param, caught.value.code, caught.value.started) == (param, code, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"tool_choice": "auto"},
        {"tool_choice": "none", "tools": []},
        {"tool_choice": None, "tools": None, "response_format": None},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        {"function_call": "auto"},
        {"response_format": {"type": "text"}, "parallel_tool_calls": True, "service_tier": "auto", "store": True},
        {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "top_logprobs": 0},
        {"logit_bias": {}, "modalities": ["text"], "cache_control": {}, "thinking": {}},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
def test_fields_that_are_accepted_and_ignored(fields: dict[str, Any]) -> None:
    assert chat([user("Hi")], **fields) == TurnRequest("Hi", asked=ASKED)


# Fields of a request, and the resulting fields of the turn.
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "inputs": ({"inputs": {"a": 1}}, {"inputs": {"a": 1}}),
    "inputs in metadata": ({"metadata": {"a": "1"}}, {"inputs": {"a": "1"}}),
    "packed inputs": ({"metadata": {"dify_inputs": '{"a":[1]}', "a": "0"}}, {"inputs": {"a": [1]}}),
    "packed inputs as an object": ({"metadata": {"dify_inputs": {"a": 1}}}, {"inputs": {"a": 1}}),
    "inputs override metadata": (
        {"inputs": {"a": 1}, "metadata": {"a": "2", "b": "3"}},
        {"inputs": {"a": 1, "b": "3"}},
    ),
    "a conversation": ({"conversation_id": "c"}, {"conversation_id": "c"}),
    "a conversation in metadata": (
        {"metadata": {"conversation_id": "c"}},
        {"conversation_id": "c", "conversation_param": "metadata.conversation_id"},
    ),
    "the body's conversation overrides that of metadata": (
        {"conversation_id": "c", "metadata": {"conversation_id": "d"}},
        {"conversation_id": "c"},
    ),
    "an empty conversation is none": ({"conversation_id": ""}, {}),
    "an end user": ({"user": "ann"}, {"end_user": "ann"}),
    "a safety identifier": ({"safety_identifier": "bob", "user": "ann"}, {"end_user": "bob"}),
    "an empty end user is none": ({"user": ""}, {}),
    "a stop sequence": ({"stop": "END"}, {"stop": ("END",)}),
    "stop sequences": ({"stop": ["a", "", "b"]}, {"stop": ("a", "b")}),
    "no stop sequence": ({"stop": None}, {}),
    "a session": ({"session_id": "s" * 256}, {"chat_id": "s" * 256}),
    "a long session is none": ({"session_id": "s" * 257}, {}),
    "a session of another type is none": ({"session_id": 7}, {}),
}


@pytest.mark.parametrize(("fields", "expected"), FIELDS.values(), ids=FIELDS)
def test_fields_of_every_request(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert chat([user("Hi")], **fields) == TurnRequest("Hi", asked=ASKED, **expected)
    assert completion("Hi", **fields) == TurnRequest("Hi", asked=ASKED, form_mode="text", **expected)


def test_the_conversation_of_a_header_overrides_that_of_the_body() -> None:
    turn = read_chat_request(
        read_json(b'{"messages": [{"role": "user", "content": "Hi"}], "conversation_id": "b"}', CHAT_OR_INPUT_REQUEST),
        RequestIdentity(conversation_id="h"),
    )
    assert (turn.conversation_id, turn.conversation_param) == ("h", "X-Dify-Conversation-Id")


def test_a_prompt_may_be_an_array_of_one() -> None:
    assert completion(["Hi"], best_of=1, echo=False, suffix="") == TurnRequest("Hi", asked=ASKED, form_mode="text")


def test_fields_without_effect_are_named() -> None:
    turn = chat([user("Hi")], temperature=0, max_tokens=5, seed=7, web_search_options={})
    assert turn.unsupported == ("temperature", "max_tokens", "seed", "web_search_options")
    turn = chat([user("Hi")], modalities=["text", "audio"], audio={"voice": "alloy", "format": "mp3"})
    assert turn.unsupported == ("audio", "modalities")
    assert completion("Hi", echo=True, suffix="!", logprobs=2).unsupported == ("echo", "logprobs", "suffix")


def test_calls_and_results_are_part_of_the_history() -> None:
    sent = {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
            {"id": "2", "type": "custom", "custom": {"name": "g", "input": "text"}},
        ],
    }
    turn = chat([user("a"), sent, tool("x", "2"), tool("y", "1")])
    assert turn.history[1].calls == (ToolCall("1", "f", '{"a":1}'), ToolCall("2", "g", "text", custom=True))
    assert turn.asked == (HistoryMessage("tool", "x", call_id="2"), HistoryMessage("tool", "y", call_id="1"))


def test_results_in_a_named_conversation_need_no_calls() -> None:
    assert chat([tool("1")], conversation_id="c").question == result("1", "")
    with pytest.raises(InvalidRequest, match=": call-2"):
        chat([calling("", "f", "g"), tool("1")], conversation_id="c")


def test_errors_about_calls_have_the_words_of_openai() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat([user("a"), calling("", "f", "g"), tool("1"), user("b")])
    assert caught.value.message == (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        "The following tool_call_ids did not have response messages: call-2"
    )
    with pytest.raises(InvalidRequest, match="'tool' must be a response to a preceding message with 'tool_calls'"):
        chat([user("a"), tool("1")])


# Rejected legacy requests: their fields, and the param and code of the error.
REFUSED_COMPLETIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"prompt": None}, "prompt", "missing_required_parameter"),
    "an empty prompt": ({"prompt": ""}, "prompt", "empty_string"),
    "several prompts": ({"prompt": ["a", "b"]}, "prompt", "unsupported_parameter"),
    "no prompts": ({"prompt": []}, "prompt", "empty_array"),
    "token ids": ({"prompt": [1, 2]}, "prompt", "unsupported_parameter"),
    "one token id": ({"prompt": [1]}, "prompt", "invalid_type"),
    "several answers": ({"prompt": "a", "n": 2}, "n", "unsupported_parameter"),
    "the best of several answers": ({"prompt": "a", "best_of": 2}, "best_of", "unsupported_parameter"),
    "the best of too many": ({"prompt": "a", "best_of": 21}, "best_of", "integer_above_max_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED_COMPLETIONS.values(), ids=REFUSED_COMPLETIONS)
def test_rejected_completion_requests(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_an_unknown_part_lists_the_supported_types() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat([user([{"type": "hologram"}])])
    assert caught.value.message == (
        "Invalid value: 'hologram'. Supported values are: 'text', 'input_text', 'output_text', 'refusal', 'audio_url', "
        "'file', 'image_url', 'input_audio', 'input_file', 'input_image', 'input_video' and 'video_url'."
    )
