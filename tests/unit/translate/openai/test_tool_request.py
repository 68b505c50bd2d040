"""Read tools, tool choices and answer formats in the forms that OpenAI documents and that clients send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.api.bodies import read_json
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.sent_tools import qualified_name, split_name
from openai_dify_proxy.translate.openai.tool_choices import MODES, forced_tool
from openai_dify_proxy.translate.openai.tool_request import RequestedOutput, read_chat_output, read_responses_output
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool, ToolChoice
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST, RESPONSES_REQUEST
from openai_dify_proxy.wire.openai.tools import MAX_TOOLS

RECORDED = Path(__file__).parents[3] / "clients/recorded"
SCHEMA = {"type": "object", "properties": {"a": {"type": "number", "maximum": 1.50}}}
SCHEMA_JSON = b'{"type":"object","properties":{"a":{"type":"number","maximum":1.5}}}'
F: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "Does f.", "parameters": SCHEMA, "strict": True},
}
G = {"type": "custom", "custom": {"name": "g"}}
WEB = {"type": "web_search"}


def chat(**fields: Any) -> RequestedOutput:
    return read_chat_output(read_json(json.encode(fields), CHAT_OR_INPUT_REQUEST))


def respond(**fields: Any) -> RequestedOutput:
    return read_responses_output(read_json(json.encode(fields), RESPONSES_REQUEST))


def output(requested: RequestedOutput) -> OutputRequest:
    assert requested.output is not None
    return requested.output


# A tool as a client sends it to a chat, and what is read.
TOOLS: dict[str, tuple[Any, Tool]] = {
    "a function": (F, Tool("f", "Does f.", SCHEMA_JSON, strict=True, param="tools[0].function")),
    "a function of the Responses API": (
        {"type": "function", **F["function"]},
        Tool("f", "Does f.", SCHEMA_JSON, strict=True, param="tools[0]"),
    ),
    "only a name": ({"type": "function", "function": {"name": "f"}}, Tool("f", param="tools[0].function")),
    "nulls": (
        {"type": "function", "function": {"name": "f", "description": None, "parameters": None, "strict": None}},
        Tool("f", param="tools[0].function"),
    ),
    "no type": (
        {"function": {"name": "f", "parameters": SCHEMA}},
        Tool("f", "", SCHEMA_JSON, param="tools[0].function"),
    ),
    "Anthropic's form": (
        {"name": "f", "description": "D", "input_schema": SCHEMA},
        Tool("f", "D", SCHEMA_JSON, param="tools[0]"),
    ),
    "an MCP tool's name": (
        {"type": "function", "function": {"name": "fs/read:1"}},
        Tool("fs/read:1", param="tools[0].function"),
    ),
    "a custom tool": (
        {"type": "custom", "custom": {"name": "g", "description": "D", "format": {"type": "text"}}},
        Tool("g", "D", custom=True, param="tools[0].custom"),
    ),
    "a custom tool with a grammar": (
        {
            "type": "custom",
            "custom": {
                "name": "g",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "a"'}},
            },
        },
        Tool("g", custom=True, grammar='start: "a"', param="tools[0].custom"),
    ),
    "a custom tool of the Responses API": (
        {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "regex", "definition": "a+"}},
        Tool("g", custom=True, grammar="a+", param="tools[0]"),
    ),
}


@pytest.mark.parametrize(("sent", "tool"), TOOLS.values(), ids=TOOLS)
def test_forms_of_tools(sent: Any, tool: Tool) -> None:
    for read in (chat, respond):
        requested = read(tools=[sent])
        assert output(requested).tools == (tool,)
        assert output(requested).choice == ToolChoice("auto")
        assert requested.unsupported == ()


def test_a_schema_stays_as_the_client_sent_it() -> None:
    schema = b'{ "type": "object",\n "maximum": 1.50 }'
    body = b'{"tools":[{"type":"function","function":{"name":"f","parameters": ' + schema + b" }}]}"
    tools = output(read_chat_output(read_json(body, CHAT_OR_INPUT_REQUEST))).tools
    assert tools[0].parameters == schema


def test_the_first_tool_with_a_name_wins() -> None:
    assert output(chat(tools=[G, {"type": "custom", "name": "g", "description": "again"}])).tools == (
        Tool("g", custom=True, param="tools[0].custom"),
    )


def test_hosted_tools_are_left_out_and_named() -> None:
    requested = respond(tools=[{**WEB, "name": 7}, F, {"type": "mcp", "server_label": "x"}, {"type": "a b"}])
    assert [tool.name for tool in output(requested).tools] == ["f"]
    assert requested.unsupported == ("tools[0] (web_search)", "tools[2] (mcp)", "tools[3] (unknown)")
    assert chat(tools=[WEB]) == RequestedOutput(None, ("tools[0] (web_search)",))


def test_namespaces_qualify_the_names_of_their_tools() -> None:
    inner = {"type": "function", "name": "spawn", "parameters": SCHEMA}
    space = {"type": "namespace", "name": "agents", "description": "D", "tools": [inner, WEB, {"type": "namespace"}]}
    requested = respond(tools=[F, space], tool_choice={"type": "function", "name": "spawn", "namespace": "agents"})
    assert output(requested).tools[1] == Tool("agents.spawn", "", SCHEMA_JSON, param="tools[1].tools[0]")
    assert output(requested).choice.names == ("agents.spawn",)
    assert requested.unsupported == ("tools[1].tools[1] (web_search)", "tools[1].tools[2] (namespace)")
    assert split_name(qualified_name("agents", "spawn")) == ("agents", "spawn")
    assert split_name(qualified_name(None, "spawn")) == (None, "spawn")


# A tool choice for the tools f, g and a hosted one, and what is read.
CHOICES: dict[str, tuple[Any, ToolChoice]] = {
    "absent": (None, ToolChoice("auto")),
    "auto": ("auto", ToolChoice("auto")),
    "none": ("none", ToolChoice("none")),
    "required": ("required", ToolChoice("required")),
    "auto as an object": ({"type": "auto"}, ToolChoice("auto")),
    "a function": ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", ("f",))),
    "a function of the Responses API": ({"type": "function", "name": "f"}, ToolChoice("required", ("f",))),
    "a custom tool": ({"type": "custom", "custom": {"name": "g"}}, ToolChoice("required", ("g",))),
    "a custom tool of the Responses API": ({"type": "custom", "name": "g"}, ToolChoice("required", ("g",))),
    "Anthropic's form": ({"type": "tool", "name": "f"}, ToolChoice("required", ("f",))),
    "allowed tools": (
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
            },
        },
        ToolChoice("required", ("f", "g")),
    ),
    "allowed tools of the Responses API": (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]},
        ToolChoice("auto", ("f",)),
    ),
    "only hosted tools are allowed": (
        {"type": "allowed_tools", "mode": "auto", "tools": [WEB]},
        ToolChoice("none"),
    ),
}


@pytest.mark.parametrize(("sent", "choice"), CHOICES.values(), ids=CHOICES)
def test_forms_of_tool_choices(sent: Any, choice: ToolChoice) -> None:
    for read in (chat, respond):
        assert output(read(tools=[F, G, WEB], tool_choice=sent)).choice == choice


# Rejected fields, and the param and code of the error.
REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "tools in words": ({"tools": "x"}, "tools", "invalid_type"),
    "a tool in words": ({"tools": ["x"]}, "tools[0]", "invalid_type"),
    "too many tools": ({"tools": [F] * (MAX_TOOLS + 1)}, "tools", "array_above_max_length"),
    "a function without a name": (
        {"tools": [{"type": "function", "function": {}}]},
        "tools[0].function.name",
        "missing_required_parameter",
    ),
    "a tool without a name": ({"tools": [{"type": "custom"}]}, "tools[0].name", "missing_required_parameter"),
    "an empty name": (
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        "tools[0].function.name",
        "empty_string",
    ),
    "a name with a space": ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value"),
    "a long name": (
        {"tools": [{"type": "function", "name": "a" * 129}]},
        "tools[0].name",
        "string_above_max_length",
    ),
    "parameters in words": (
        {"tools": [{"type": "function", "name": "f", "parameters": "x"}]},
        "tools[0].parameters",
        "invalid_type",
    ),
    "a list of parameters": (
        {"tools": [{"type": "function", "name": "f", "parameters": []}]},
        "tools[0].parameters",
        "invalid_type",
    ),
    "a number of parameters": (
        {"tools": [{"type": "function", "name": "f", "parameters": 7}]},
        "tools[0].parameters",
        "invalid_type",
    ),
    "an unknown choice": ({"tools": [F], "tool_choice": "invalid_choice"}, "tool_choice", "invalid_value"),
    "a number as a choice": ({"tools": [F], "tool_choice": 7}, "tool_choice", "invalid_type"),
    "a choice without a type": (
        {"tools": [F], "tool_choice": {"function": {"name": "f"}}},
        "tool_choice.type",
        "missing_required_parameter",
    ),
    "a choice whose type is a number": ({"tools": [F], "tool_choice": {"type": 7}}, "tool_choice.type", "invalid_type"),
    "an unknown type of choice": ({"tools": [F], "tool_choice": {"type": "any"}}, "tool_choice.type", "invalid_value"),
    "a choice without a name": (
        {"tools": [F], "tool_choice": {"type": "function", "function": {}}},
        "tool_choice.function.name",
        "missing_required_parameter",
    ),
    "a choice of an unknown tool": (
        {"tools": [F, WEB], "tool_choice": {"type": "function", "function": {"name": "h"}}},
        "tool_choice",
        None,
    ),
    "a choice of an unknown custom tool": (
        {"tools": [F], "tool_choice": {"type": "custom", "name": "h"}},
        "tool_choice",
        None,
    ),
    "a choice without tools": ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", None),
    "any tool without tools": ({"tools": [], "tool_choice": "required"}, "tool_choice", None),
    "an allowed tool that is unknown": (
        {
            "tools": [F],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "h"}]},
        },
        "tool_choice.tools[0]",
        None,
    ),
    "allowed tools without a mode": (
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "tools": []}},
        "tool_choice.mode",
        "missing_required_parameter",
    ),
    "allowed tools with another mode": (
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}}},
        "tool_choice.allowed_tools.mode",
        "invalid_value",
    ),
    "allowed tools in words": (
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": "f"}},
        "tool_choice.tools",
        "invalid_type",
    ),
    "an allowed tool in words": (
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": ["f"]}},
        "tool_choice.tools[0]",
        "invalid_type",
    ),
    "no allowed tool": (
        {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}},
        "tool_choice",
        None,
    ),
    "a hosted tool": (
        {"tools": [F, WEB], "tool_choice": {"type": "web_search_preview"}},
        "tool_choice",
        "unsupported_parameter",
    ),
    "any of the hosted tools": ({"tools": [WEB], "tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    "an allowed hosted tool": (
        {"tools": [WEB], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [WEB]}},
        "tool_choice",
        "unsupported_parameter",
    ),
    "too many tools in namespaces": (
        {
            "tools": [
                {"type": "namespace", "name": f"n{n}", "tools": [{"name": f"f{m}"} for m in range(501)]} for n in (1, 2)
            ]
        },
        "tools[1].tools",
        None,
    ),
    "a namespace without a name": ({"tools": [{"type": "namespace"}]}, "tools[0].name", "missing_required_parameter"),
}


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_rejected_tools_and_choices(fields: dict[str, Any], param: str, code: str | None) -> None:
    for read in (chat, respond):
        with pytest.raises(InvalidRequest) as caught:
            read(**fields)
        assert (caught.value.param, caught.value.code) == (param, code)


def test_errors_have_the_words_of_openai() -> None:
    for fields, words in (
        (
            {"tool_choice": "invalid_choice"},
            "Invalid value: 'invalid_choice'. Supported values are: 'none', 'auto' and 'required'.",
        ),
        (
            {"tool_choice": "required"},
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        ),
        (
            {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
            "Invalid value for 'function_call': no function named 'g' was specified in the 'functions' parameter.",
        ),
    ):
        with pytest.raises(InvalidRequest) as caught:
            chat(**fields)
        assert caught.value.message == words


def test_a_schema_that_is_not_utf8_is_rejected() -> None:
    body = b'{"tools":[{"type":"function","name":"f","parameters":{"title":"\xff"}}]}'
    with pytest.raises(InvalidRequest) as caught:
        read_chat_output(read_json(body, CHAT_OR_INPUT_REQUEST))
    assert caught.value.param == "tools[0].parameters"


def test_parallel_calls() -> None:
    assert output(chat(tools=[F])).parallel
    assert output(chat(tools=[F], parallel_tool_calls=None)).parallel
    assert not output(chat(tools=[F], parallel_tool_calls=False)).parallel
    assert not output(respond(tools=[F], parallel_tool_calls=False)).parallel


def test_legacy_functions() -> None:
    function = {"name": "f", "parameters": SCHEMA}
    tool = Tool("f", "", SCHEMA_JSON, param="functions[0]")
    for sent, choice in (
        (None, ToolChoice("auto", param="function_call")),
        ("none", ToolChoice("none", param="function_call")),
        ({"name": "f"}, ToolChoice("required", ("f",), "function_call")),
    ):
        expected = OutputRequest((tool,), choice, parallel=False, legacy=True)
        assert chat(functions=[function], function_call=sent).output == expected
    assert not output(chat(functions=[function], tools=[F])).legacy


# response_format of a chat, and what is read; the last is also text.format of a response.
FORMATS: dict[str, tuple[Any, AnswerFormat | None]] = {
    "text": ({"type": "text"}, None),
    "any object": ({"type": "json_object"}, AnswerFormat()),
    "a schema": (
        {"type": "json_schema", "json_schema": {"name": "n", "description": "D", "schema": SCHEMA, "strict": True}},
        AnswerFormat(SCHEMA_JSON, "n", "D", strict=True, param="response_format.json_schema.schema"),
    ),
    "a schema without a name": (
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        AnswerFormat(SCHEMA_JSON, param="response_format.json_schema.schema"),
    ),
    "a schema of the Responses API": (
        {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": None},
        AnswerFormat(SCHEMA_JSON, "n", param="response_format.schema"),
    ),
}


@pytest.mark.parametrize(("sent", "answer_format"), FORMATS.values(), ids=FORMATS)
def test_forms_of_answer_formats(sent: Any, answer_format: AnswerFormat | None) -> None:
    expected = None if answer_format is None else OutputRequest(answer_format=answer_format)
    assert chat(response_format=sent).output == expected


def test_the_format_of_a_response() -> None:
    requested = respond(text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}, "verbosity": "low"})
    assert output(requested).answer_format == AnswerFormat(SCHEMA_JSON, "n", param="text.format.schema")
    assert requested.unsupported == ("text.verbosity",)
    assert respond(reasoning={"effort": "high", "summary": "auto"}) == RequestedOutput(None, ("reasoning.effort",))
    assert respond(input="Hi") == RequestedOutput()
    assert respond(reasoning={"summary": "auto"}, text={"format": {"type": "text"}}) == RequestedOutput()


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ("json_object", "response_format", "invalid_type"),
        ({}, "response_format.type", "missing_required_parameter"),
        ({"type": "xml"}, "response_format.type", "invalid_value"),
        ({"type": "json_schema"}, "response_format.schema", "missing_required_parameter"),
        (
            {"type": "json_schema", "json_schema": {"name": "n"}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": True}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": 7, "schema": {}}},
            "response_format.json_schema.name",
            "invalid_type",
        ),
    ],
)
def test_rejected_formats(sent: Any, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(response_format=sent)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_the_error_for_tools_that_are_turned_off() -> None:
    assert (forced_tool("tool_choice").param, forced_tool("tool_choice").code) == (
        "tool_choice",
        "unsupported_parameter",
    )


# Recorded requests of real programs: the names of the tools, the choice, and the unsupported parameters.
CODEX = (
    "exec_command write_stdin request_user_input view_image multi_agent_v1.close_agent multi_agent_v1.resume_agent "
    "multi_agent_v1.send_input multi_agent_v1.spawn_agent multi_agent_v1.wait_agent get_goal create_goal update_goal"
)
PROGRAMS = {
    "codex/turn-1": (CODEX, ("tools[8] (web_search)",)),
    "codex/turn-3": ("", ()),
    "open-webui/turn-2": ("", ()),
}


@pytest.mark.parametrize(("name", "expected"), PROGRAMS.items(), ids=PROGRAMS)
def test_recorded_requests(name: str, expected: tuple[str, tuple[str, ...]]) -> None:
    recorded = json.decode((RECORDED / f"{name}.json").read_bytes())
    read = respond if recorded["path"].endswith("responses") else chat
    requested = read(**recorded["body"])
    tools = () if requested.output is None else requested.output.tools
    assert (" ".join(tool.name for tool in tools), requested.unsupported) == expected


def test_the_recorded_tools_of_open_webui() -> None:
    body = json.decode((RECORDED / "open-webui/turn-1.json").read_bytes())["body"]
    sent = [tool["function"] for tool in body["tools"]]
    tools = output(chat(**body)).tools
    assert [(tool.name, tool.description) for tool in tools] == [(tool["name"], tool["description"]) for tool in sent]
    assert [json.decode(tool.parameters or b"") for tool in tools] == [tool["parameters"] for tool in sent]


def test_a_recorded_schema_of_librechat() -> None:
    body = json.decode((RECORDED / "librechat/title-structured.json").read_bytes())["body"]
    answer_format = output(chat(**body)).answer_format
    assert answer_format is not None
    assert json.decode(answer_format.schema or b"") == body["response_format"]["json_schema"]["schema"]
    assert answer_format.name == "extract"


def test_the_modes_are_those_of_openai() -> None:
    assert MODES == ("none", "auto", "required")
