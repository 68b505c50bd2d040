from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import InvalidRequest, UpstreamMisconfigured
from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.instructions import Instructions
from openai_dify_proxy.translate.dify.request import (
    BEGINNING,
    AppRules,
    Continuation,
    generate_path,
    make_generate_request,
    named_conversation,
    sent_inputs,
    sent_system,
    stop_path,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall, TurnRequest
from openai_dify_proxy.wire.dify import Mode, encode_generate_request

CONVERSATION = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
HISTORY = (HistoryMessage("user", "a"), HistoryMessage("assistant", "b"))
TRANSCRIPT = "User: a\n\nAssistant: b"
CARRIED = f"The conversation so far, oldest message first:\n\n{TRANSCRIPT}\n\nThe new message to answer:\n\n"
CONVERSING: tuple[Mode, ...] = ("chat", "agent-chat", "advanced-chat", "agent")

TURN = TurnRequest("Hi")
WITH_SYSTEM = TurnRequest("Hi", "Be kind.")
WITH_HISTORY = TurnRequest("Hi", history=HISTORY)


def text(name: str, *, required: bool = False, default: Any = None, max_length: int | None = None) -> InputField:
    return InputField("text-input", name, required=required, default=default, max_length=max_length)


def body(
    turn: TurnRequest,
    mode: Mode = "chat",
    *form: InputField,
    rules: AppRules | None = None,
    version: str | None = None,
    continuation: Continuation = BEGINNING,
) -> dict[str, Any]:
    profile = AppProfile(mode, form, version=version)
    request = make_generate_request(turn, profile, rules or AppRules(), "u", continuation=continuation)
    sent: dict[str, Any] = json.decode(encode_generate_request(request))
    return sent


def inputs(given: dict[str, Any], *form: InputField, version: str | None = None) -> Any:
    return body(TurnRequest("Hi", inputs=given), "chat", *form, version=version)["inputs"]


@pytest.mark.parametrize("mode", CONVERSING)
def test_requests_to_apps_with_conversations(mode: Mode) -> None:
    """Always streaming, and without a generated name, which up to 1.13 takes a second and a model call."""
    assert body(TURN, mode) == {
        "inputs": {},
        "user": "u",
        "response_mode": "streaming",
        "query": "Hi",
        "auto_generate_name": False,
    }


def test_requests_to_completion_apps() -> None:
    request = {"user": "u", "response_mode": "streaming", "query": "Hi"}
    assert body(TURN, "completion") == {"inputs": {}, **request}
    assert body(TURN, "completion", text("query", required=True)) == {"inputs": {"query": "Hi"}, **request}
    assert body(TURN, "completion", text("a"), text("b")) == {"inputs": {"a": "", "b": ""}, **request}


def test_requests_to_workflows() -> None:
    assert body(TURN, "workflow", text("topic")) == {
        "inputs": {"topic": "Hi"},
        "user": "u",
        "response_mode": "streaming",
    }


def test_a_workflow_without_text_inputs_takes_no_question() -> None:
    assert body(TURN, "workflow")["inputs"] == {}
    assert body(TURN, "workflow", InputField("number", "n", default=3))["inputs"] == {"n": 3}


def test_a_workflow_without_a_field_for_the_question() -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(TURN, "workflow", text("a"), text("b"))
    assert (caught.value.param, caught.value.code) == ("model", "ambiguous_input")
    assert "a, b" in caught.value.message


def test_a_request_with_inputs_for_all_texts() -> None:
    turn = TurnRequest("Hi", inputs={"a": "1", "b": "2"})
    assert body(turn, "workflow", text("a"), text("b"))["inputs"] == {"a": "1", "b": "2"}
    assert body(TurnRequest("Hi", inputs={"query": "mine"}), "workflow", text("query"))["inputs"] == {"query": "mine"}


def test_the_configured_variable_takes_the_question() -> None:
    rules = AppRules(input_variable="b")
    assert body(TURN, "workflow", text("a"), text("b"), rules=rules)["inputs"] == {"a": "", "b": "Hi"}


@pytest.mark.parametrize(
    ("mode", "rules", "setting"),
    [
        ("workflow", AppRules(input_variable="nosuch"), "input_variable"),
        ("chat", AppRules(system_prompt="input:nosuch"), "system_prompt"),
    ],
)
def test_a_setting_that_names_an_unknown_input_is_an_error(mode: Mode, rules: AppRules, setting: str) -> None:
    turn = TurnRequest("Q", "S")
    with pytest.raises(UpstreamMisconfigured) as caught:
        make_generate_request(turn, AppProfile(mode, (text("topic"),)), rules, "user")
    assert (
        caught.value.log == f"{setting} names the input 'nosuch', which the app does not have. Its inputs are: topic."
    )


def test_a_question_too_long_for_its_input() -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(WITH_SYSTEM, "workflow", text("query", max_length=11))
    assert caught.value.param == "inputs.query"
    assert "11" in caught.value.message
    assert "12" in caught.value.message
    assert body(WITH_SYSTEM, "workflow", text("query", max_length=12))["inputs"] == {"query": "Be kind.\n\nHi"}
    given = TurnRequest("a long question", inputs={"query": "short"})
    assert body(given, "workflow", text("query", max_length=5))["inputs"] == {"query": "short"}


# The rule, the form, the sent inputs, the sent query.
SYSTEMS: dict[str, tuple[str, list[InputField], dict[str, Any], str]] = {
    "auto, no input for it": ("auto", [text("topic")], {"topic": ""}, "Be kind.\n\nHi"),
    "auto, an input for it": ("auto", [text("Instructions")], {"Instructions": "Be kind."}, "Hi"),
    "auto, the best-named": (
        "auto",
        [text("system"), text("system_prompt")],
        {"system": "", "system_prompt": "Be kind."},
        "Hi",
    ),
    "auto, the input is too small": ("auto", [text("system", max_length=3)], {"system": ""}, "Be kind.\n\nHi"),
    "auto, the input is no text": ("auto", [InputField("number", "system")], {}, "Be kind.\n\nHi"),
    "query": ("query", [text("system")], {"system": ""}, "Be kind.\n\nHi"),
    "drop": ("drop", [text("system")], {"system": ""}, "Hi"),
    "an input by name": ("input:tone", [text("tone"), text("system")], {"tone": "Be kind.", "system": ""}, "Hi"),
}


@pytest.mark.parametrize(("rule", "form", "sent", "query"), SYSTEMS.values(), ids=SYSTEMS)
def test_the_place_of_the_system_message(rule: str, form: list[InputField], sent: dict[str, Any], query: str) -> None:
    request = body(WITH_SYSTEM, "chat", *form, rules=AppRules(system_prompt=rule))
    assert (request["inputs"], request["query"]) == (sent, query)


@pytest.mark.parametrize("rule", ["auto", "input:system"])
def test_an_input_of_the_request_overrides_the_system_message(rule: str) -> None:
    turn = TurnRequest("Hi", "Be kind.", inputs={"system": "Be rude."})
    request = body(turn, "chat", text("system"), rules=AppRules(system_prompt=rule))
    assert (request["inputs"], request["query"]) == ({"system": "Be rude."}, "Hi")


def test_a_system_message_equal_to_the_question_is_sent_once() -> None:
    assert body(TurnRequest("Say hi.", "Say hi."))["query"] == "Say hi."


@pytest.mark.parametrize("mode", [*CONVERSING, "completion"])
def test_earlier_turns_are_sent_before_the_question(mode: Mode) -> None:
    assert body(WITH_HISTORY, mode)["query"] == f"{CARRIED}Hi"
    turn = TurnRequest("Hi", "Be kind.", HISTORY)
    assert body(turn, mode)["query"] == f"Be kind.\n\n{CARRIED}Hi"


def test_earlier_turns_without_text_are_not_sent() -> None:
    silent = (HistoryMessage("assistant", ""),)
    assert body(TurnRequest("Hi", history=silent))["query"] == "Hi"
    assert body(TurnRequest("Hi", history=silent), "chat", text("history"))["inputs"] == {"history": ""}
    assert body(TurnRequest("Hi", history=(*silent, *HISTORY)))["query"] == f"{CARRIED}Hi"


def test_earlier_turns_are_sent_in_the_question_of_a_workflow() -> None:
    assert body(WITH_HISTORY, "workflow", text("query"))["inputs"] == {"query": f"{CARRIED}Hi"}


def test_earlier_turns_are_sent_in_their_own_input() -> None:
    for name in ("history", "chat_history"):
        request = body(WITH_HISTORY, "chat", text(name))
        assert (request["inputs"], request["query"]) == ({name: TRANSCRIPT}, "Hi")
    request = body(WITH_HISTORY, "chat", text("messages"))
    assert json.decode(request["inputs"]["messages"]) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert request["query"] == "Hi"


def test_earlier_turns_too_long_for_their_input() -> None:
    request = body(WITH_HISTORY, "chat", text("history", max_length=5))
    assert (request["inputs"], request["query"]) == ({"history": ""}, f"{CARRIED}Hi")


def test_an_input_of_the_request_overrides_earlier_turns() -> None:
    request = body(TurnRequest("Hi", history=HISTORY, inputs={"history": "mine"}), "chat", text("history"))
    assert (request["inputs"], request["query"]) == ({"history": "mine"}, f"{CARRIED}Hi")


WHOLE = TurnRequest("Hi", "Be kind.", HISTORY)
CONTINUED = Continuation(CONVERSATION, history=False, system=False)


def test_a_continued_conversation_receives_only_new_text() -> None:
    request = body(WHOLE, continuation=CONTINUED)
    assert (request["query"], request["conversation_id"]) == ("Hi", CONVERSATION)
    assert body(WHOLE, "chat", text("system"), continuation=CONTINUED)["inputs"] == {"system": "Be kind."}


def test_a_continued_conversation_receives_a_new_system_message() -> None:
    request = body(WHOLE, continuation=Continuation(CONVERSATION, history=False))
    assert (request["query"], request["conversation_id"]) == ("Be kind.\n\nHi", CONVERSATION)


def test_a_conversation_of_a_model_without_memory_receives_the_history() -> None:
    request = body(WITH_HISTORY, continuation=Continuation(CONVERSATION))
    assert (request["query"], request["conversation_id"]) == (f"{CARRIED}Hi", CONVERSATION)


def test_the_last_message_alone() -> None:
    request = body(WITH_HISTORY, continuation=Continuation(history=False))
    assert request["query"] == "Hi"
    assert "conversation_id" not in request


def test_a_conversation_id_must_be_a_uuid() -> None:
    assert named_conversation(TurnRequest("Hi", conversation_id=CONVERSATION.upper())) == CONVERSATION
    assert named_conversation(TurnRequest("Hi")) is None
    for param in ("conversation_id", "X-Dify-Conversation-Id"):
        with pytest.raises(InvalidRequest, match=f"^{param} must be a UUID") as caught:
            named_conversation(TurnRequest("Hi", conversation_id="../7", conversation_param=param))
        assert caught.value.param == param


# The system message, the rule for it, and the text sent to Dify.
SENT_SYSTEM = {
    "auto": ("Be kind.", "auto", "Be kind."),
    "an input": ("Be kind.", "input:tone", "Be kind."),
    "dropped": ("Be kind.", "drop", ""),
    "none": ("", "query", ""),
    "it is the question": ("Hi", "query", ""),
}


@pytest.mark.parametrize(("system", "rule", "sent"), SENT_SYSTEM.values(), ids=SENT_SYSTEM)
def test_the_system_message_as_sent_to_dify(system: str, rule: str, sent: str) -> None:
    assert sent_system(TurnRequest("Hi", system), AppRules(system_prompt=rule)) == sent


def test_the_inputs_as_sent_to_dify() -> None:
    profile = AppProfile("chat", (text("a"), text("b")))
    rules = AppRules(inputs={"b": "set", "c": "unknown"})
    assert sent_inputs(TurnRequest("Hi", inputs={"a": "1", "z": "9"}), profile, rules) == '{"a":"1","b":"set"}'
    assert sent_inputs(TurnRequest("Hi", inputs={"b": "2", "a": "1"}), profile, rules) == '{"a":"1","b":"2"}'
    assert sent_inputs(TurnRequest("Hi", inputs={"z": "9"}), AppProfile("chat"), rules) == ""


@pytest.mark.parametrize("mode", ["completion", "workflow"])
def test_apps_without_conversations_receive_no_conversation_id(mode: Mode) -> None:
    request = body(TurnRequest("Hi", conversation_id="anything"), mode)
    assert "conversation_id" not in request
    assert "auto_generate_name" not in request


TOPIC = text("topic", required=True)
TONE = InputField("select", "tone", "Tone of voice", required=True, options=("kind", "rude"))
SWITCH = InputField("checkbox", "sure")
JSON = InputField("json_object", "cfg")
NUMBER = InputField("number", "count")

# The inputs of the request, the form, the sent inputs.
INPUTS: dict[str, tuple[dict[str, Any], list[InputField], dict[str, Any]]] = {
    "inputs that are not in the form are dropped": ({"a": 1, "topic": "x"}, [TOPIC], {"topic": "x"}),
    "a number for a text": ({"topic": 7}, [TOPIC], {"topic": "7"}),
    "an object for a text": ({"topic": {"a": 1}}, [TOPIC], {"topic": '{"a":1}'}),
    "a boolean for a text": ({"topic": True}, [TOPIC], {"topic": "true"}),
    "an option": ({"tone": "kind"}, [TONE], {"tone": "kind"}),
    "an option of a field without a list of options": ({"x": "any"}, [InputField("select", "x")], {"x": "any"}),
    "a number": ({"count": 7}, [NUMBER], {"count": 7}),
    "a number as text, which Dify reads itself": ({"count": "7"}, [NUMBER], {"count": "7"}),
    "switched on": ({"sure": " True "}, [SWITCH], {"sure": True}),
    "switched off": ({"sure": "no"}, [SWITCH], {"sure": False}),
    "a switch as it is": ({"sure": True}, [SWITCH], {"sure": True}),
    "an object": ({"cfg": {"a": 1}}, [JSON], {"cfg": {"a": 1}}),
    "an object as text": ({"cfg": '{"a":1}'}, [JSON], {"cfg": {"a": 1}}),
    "a default": ({}, [text("topic", required=True, default="x")], {"topic": "x"}),
    "a default in place of null": ({"topic": None}, [text("topic", default="x")], {"topic": "x"}),
    "a default of another type": ({}, [text("topic", default=7)], {"topic": "7"}),
    "a missing optional text is empty, or some apps say None": ({}, [text("topic")], {"topic": ""}),
    "an optional number is omitted": ({}, [NUMBER], {}),
    "an empty text is a text": ({"topic": ""}, [TOPIC], {"topic": ""}),
}


@pytest.mark.parametrize(("given", "form", "sent"), INPUTS.values(), ids=INPUTS)
def test_inputs(given: dict[str, Any], form: list[InputField], sent: dict[str, Any]) -> None:
    assert inputs(given, *form) == sent


def test_a_json_input_is_a_text_for_old_versions() -> None:
    for given in ('{"a": 1}', {"a": 1}):
        assert inputs({"cfg": given}, JSON, version="1.11.2") == {"cfg": '{"a":1}'}


# The inputs of the request, the form, the param of the error, words of its message.
REFUSED: dict[str, tuple[dict[str, Any], list[InputField], str, str]] = {
    "a required one is missing": ({}, [TOPIC], "inputs.topic", "'topic'"),
    "a required one is null": ({"topic": None}, [TOPIC], "inputs.topic", "'topic'"),
    "a required one with options": ({}, [TONE], "inputs.tone", "one of kind, rude"),
    "a required one with a label": (
        {},
        [InputField("number", "n", "How many", required=True)],
        "inputs.n",
        "'n' (How many)",
    ),
    "an unknown option": ({"tone": "wry"}, [TONE], "inputs.tone", "one of kind, rude"),
    "too long": ({"a": "12345"}, [text("a", max_length=4)], "inputs.a", "at most 4"),
    "malformed JSON": ({"cfg": "{"}, [JSON], "inputs.cfg", "JSON object"),
    "JSON that is not an object": ({"cfg": [1]}, [JSON], "inputs.cfg", "JSON object"),
    "JSON nested too deeply": ({"cfg": "[" * 100_000}, [JSON], "inputs.cfg", "JSON object"),
}


@pytest.mark.parametrize(("given", "form", "param", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_inputs(given: dict[str, Any], form: list[InputField], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        inputs(given, *form)
    assert caught.value.param == param
    assert words in caught.value.message


def test_a_missing_input_has_its_own_code() -> None:
    with pytest.raises(InvalidRequest) as caught:
        inputs({}, InputField("file", "doc", "doc", required=True))
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "inputs.doc")
    assert "(doc)" not in caught.value.message


def test_requests_override_settings_and_settings_override_the_form() -> None:
    rules = AppRules(inputs={"a": "settings", "b": "settings"})
    turn = TurnRequest("Hi", inputs={"a": "request"})
    form = [text(name, default="form") for name in ("a", "b", "c")]
    assert body(turn, "chat", *form, rules=rules)["inputs"] == {"a": "request", "b": "settings", "c": "form"}
    assert rules.inputs == {"a": "settings", "b": "settings"}


def test_calls_of_the_history_are_part_of_the_question() -> None:
    history = (
        HistoryMessage("user", "Weather?"),
        HistoryMessage("assistant", "", (ToolCall("a", "get_weather", "{}"),)),
        HistoryMessage("tool", "sunny", call_id="a"),
    )
    question = body(TurnRequest("And?", history=history))["query"]
    assert "<tool_call>" in question
    assert '<tool_result name="get_weather">\nsunny\n</tool_result>' in question
    assert question.endswith("And?")


def test_instructions_are_part_of_the_question() -> None:
    instructions = Instructions("Tools: a, b.", "Remember the tools.", "Call a.", "a, b")
    request = make_generate_request(TURN, AppProfile("chat"), AppRules(), "u", instructions=instructions)
    question = json.decode(encode_generate_request(request))["query"]
    assert question == "Hi\n\n<instructions>\nTools: a, b.\n</instructions>"


@pytest.mark.parametrize(
    ("mode", "run", "stop"),
    [
        ("chat", "/chat-messages", "/chat-messages/T/stop"),
        ("agent-chat", "/chat-messages", "/chat-messages/T/stop"),
        ("advanced-chat", "/chat-messages", "/chat-messages/T/stop"),
        ("agent", "/chat-messages", "/chat-messages/T/stop"),
        ("completion", "/completion-messages", "/completion-messages/T/stop"),
        ("workflow", "/workflows/run", "/workflows/tasks/T/stop"),
    ],
)
def test_routes(mode: Mode, run: str, stop: str) -> None:
    assert (generate_path(mode), stop_path(mode, "T")) == (run, stop)
