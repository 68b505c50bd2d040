"""Write the instructions for tools and schemas."""

from __future__ import annotations

import json
import re

import pytest

from openai_dify_proxy.tools.instructions import (
    demand,
    full_instructions,
    reminder,
    schema_instructions,
)
from openai_dify_proxy.tools.repair_questions import CallFault, calls_question, format_question, missing_call_question
from openai_dify_proxy.translate.tool_template import TEMPLATE, check_template
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool, ToolChoice

WEATHER = Tool(
    "get_weather",
    "Get the weather.",
    json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string", "examples": ["Paris"]}, "days": {"type": "integer"}},
            "required": ["city"],
        }
    ).encode(),
)
NOW = Tool("now", "Get the time.")
SEARCH = Tool("search", parameters=b'{"properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}')
PATCH = Tool("apply_patch", "Edit a file.", custom=True)
BROKEN = Tool("broken", parameters=b"{")
ANSWER = AnswerFormat(b'{"type": "object", "properties": {"x": {"type": "number"}}}', description=" The result. ")

_BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def _calls(text: str) -> list[str]:
    return _BLOCK.findall(text)


def test_the_whole_text() -> None:
    assert full_instructions(OutputRequest((WEATHER, NOW, PATCH))) == (
        "You can call these tools. Each is shown as its name and the type of its arguments.\n\n"
        "// Get the weather.\nget_weather({ city: string; days?: integer })\n\n"
        "// Get the time.\nnow({})\n\n"
        "// Edit a file.\napply_patch(free text)\n\n"
        "To call a tool, write the call in your answer, in exactly this form, with the name first and the arguments as "
        "one JSON object:\n"
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        "A tool with free text gets the text after the name, as it is:\n"
        '<tool_call>{"name": "apply_patch"}\n...\n</tool_call>\n'
        "Several calls that do not depend on each other follow one another:\n"
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        '<tool_call>{"name": "now", "arguments": {}}</tool_call>\n'
        "After the last call, stop. Do not write anything behind it, and never write a tool's result yourself: the "
        "result comes with the next message, in <tool_result>.\n\n"
        "Call a tool if it helps with this message, else answer as usual."
    )


def test_one_call_at_a_time() -> None:
    text = full_instructions(OutputRequest((NOW, SEARCH), parallel=False))
    assert _calls(text) == ['{"name": "search", "arguments": {"query": "..."}}']
    assert text.endswith(" Write at most one call.")


def test_a_single_tool_is_called_twice_in_parallel() -> None:
    assert _calls(full_instructions(OutputRequest((NOW,)))) == ['{"name": "now", "arguments": {}}'] * 3


def test_only_custom_tools() -> None:
    assert _calls(full_instructions(OutputRequest((PATCH,)))) == ['{"name": "apply_patch"}\n...\n']


def test_examples_use_a_tool_that_may_be_called() -> None:
    output = OutputRequest((WEATHER, NOW, BROKEN), ToolChoice("required", ("broken",)))
    assert _calls(reminder(output)) == ['{"name": "broken", "arguments": {}}']
    unknown = OutputRequest((WEATHER,), ToolChoice("required", ("other",)))
    assert _calls(reminder(unknown)) == ['{"name": "get_weather", "arguments": {"city": "Paris"}}']


DEMANDS: list[tuple[OutputRequest, str]] = [
    (OutputRequest((NOW,)), ""),
    (OutputRequest(), ""),
    (
        OutputRequest((NOW,), parallel=False),
        "Call a tool if it helps with this message, else answer as usual. Write at most one call.",
    ),
    (OutputRequest((NOW,), ToolChoice("none")), "Do not call a tool in this answer."),
    (OutputRequest((NOW, SEARCH), ToolChoice("required")), "Your answer to this message must be a tool call."),
    (
        OutputRequest((NOW, SEARCH), ToolChoice("required", ("now",)), parallel=False),
        "Your answer to this message must be a call of the tool now. Write at most one call.",
    ),
    (
        OutputRequest((NOW, SEARCH, PATCH), ToolChoice("required", ("now", "search"))),
        "Your answer to this message must be a tool call. Call only one of these tools: now, search.",
    ),
    (
        OutputRequest((NOW, SEARCH), ToolChoice("auto", ("now",))),
        "Call a tool if it helps with this message, else answer as usual. Call only this tool: now.",
    ),
    (
        OutputRequest(answer_format=ANSWER),
        "Answer with JSON only, which fits the type that you were given.",
    ),
    (
        OutputRequest((NOW,), answer_format=ANSWER),
        "When you answer without a tool call: Answer with JSON only, which fits the type that you were given.",
    ),
    (
        OutputRequest((NOW,), ToolChoice("none"), answer_format=ANSWER),
        "Do not call a tool in this answer.\n\nAnswer with JSON only, which fits the type that you were given.",
    ),
]


@pytest.mark.parametrize(("output", "text"), DEMANDS)
def test_what_a_turn_demands(output: OutputRequest, text: str) -> None:
    assert demand(output) == text


def test_schemas() -> None:
    assert schema_instructions(ANSWER) == (
        "Answer with JSON only, which fits this type. Do not explain it, and do not put it into a code block.\n"
        "The result.\n{ x?: number }"
    )
    assert schema_instructions(AnswerFormat()) == (
        "Answer with one JSON object only. Do not explain it, and do not put it into a code block."
    )
    assert full_instructions(OutputRequest(answer_format=ANSWER)) == schema_instructions(ANSWER)
    assert full_instructions(OutputRequest((NOW,), answer_format=ANSWER)).endswith(
        f"\n\nWhen you answer without a tool call: {schema_instructions(ANSWER)}"
    )
    assert full_instructions(OutputRequest()) == ""


def test_reminders_have_the_form_without_the_definitions() -> None:
    text = reminder(OutputRequest((WEATHER, NOW), ToolChoice("required"), answer_format=ANSWER))
    assert text.startswith("You can call these tools: get_weather, now.\nTo call a tool,")
    assert "Get the weather" not in text
    assert "must be a tool call" in text
    assert "{ x?: number }" in text
    assert reminder(OutputRequest()) == ""


def test_templates_replace_the_wording() -> None:
    template = 'Tools:\n{tools}\nForm {"name": …}:\n{format}\n{demand}!'
    check_template(template)
    check_template(TEMPLATE)
    braces = Tool("f", "See {tools} and {demand}.")
    text = full_instructions(OutputRequest((braces,)), template)
    assert text.startswith('Tools:\n// See {tools} and {demand}.\nf({})\nForm {"name": …}:\nTo call a tool')
    assert text.endswith("answer as usual.!")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{tools} {format} {demand} {mode}",
            "unknown placeholder {mode}; the placeholders are {tools}, {format}, {demand}",
        ),
        ("{tools} {format}", "{demand} must occur once; the placeholders are {tools}, {format}, {demand}"),
        ("{tools} {tools} {format} {demand}", "{tools} must occur once"),
    ],
)
def test_bad_templates(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_template(template)


def test_instructions_are_shorter_than_the_schemas_of_many_tools() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City name, e.g. Paris"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = tuple(Tool(f"tool_{number}", "Get it.", json.dumps(schema).encode()) for number in range(40))
    assert len(full_instructions(OutputRequest(tools))) < 0.6 * 40 * len(json.dumps(schema))


def test_questions_that_ask_for_corrected_calls() -> None:
    fault = CallFault(WEATHER, ['"city" is a required property', "days: too small"])
    assert calls_question([fault]) == (
        'Your call of get_weather is invalid:\n- "city" is a required property\n- days: too small\n\n'
        "The tool is:\n// Get the weather.\nget_weather({ city: string; days?: integer })\n\n"
        "Write the corrected call only, with the name first: "
        '<tool_call>{"name": "...", "arguments": {...}}</tool_call>. '
        "Do not explain or apologize."
    )
    both = calls_question([fault, CallFault(WEATHER, ["x"])])
    assert both.count("The tool is:") == 1
    assert "Write the corrected calls only" in both


def test_questions_that_ask_for_a_missing_call() -> None:
    form = 'Write the call only, with the name first: <tool_call>{"name": "...", "arguments": {...}}</tool_call>.'
    assert missing_call_question(OutputRequest((NOW, SEARCH), ToolChoice("required", ("now",)))) == (
        f"Your answer must be a tool call of now. {form} Do not explain or apologize."
    )
    assert missing_call_question(OutputRequest((NOW, SEARCH), ToolChoice("required"))).startswith(
        "Your answer must be a tool call of one of these tools: now, search. "
    )


def test_questions_about_free_text_show_its_form() -> None:
    patch = Tool("apply_patch", custom=True)
    fault = CallFault(patch, ["The text has no </tool_call> behind it."])
    form = '<tool_call>{"name": "..."}\n...\n</tool_call>'
    only = f"with the name first, and the text behind it as it is: {form}. Do not explain"
    assert f"Write the corrected call only, {only}" in calls_question([fault])
    assert f"Write the call only, {only}" in missing_call_question(OutputRequest((patch,), ToolChoice("required")))
    both = missing_call_question(OutputRequest((patch, NOW), ToolChoice("required")))
    assert f"{{...}}}}</tool_call>, or for a tool with free text: {form}." in both


def test_questions_that_ask_for_corrected_json() -> None:
    assert format_question(ANSWER, ["x: wrong"]) == (
        f"Your answer is not the JSON that was asked for:\n- x: wrong\n\n{schema_instructions(ANSWER)}"
    )
