"""Check the tools and the answer format of a request, with the errors of OpenAI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.tools.output_checks import (
    MAX_SCHEMAS,
    check_output_request,
    format_validator,
    tool_validator,
)
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool, ToolChoice

CITY = b'{"type": "object", "properties": {"city": {"type": "string"}}}'
STRICT = b'{"type": "object", "properties": {}, "required": [], "additionalProperties": false}'


def _tool(name: str = "f", schema: Any = None, **changes: Any) -> Tool:
    parameters = None if schema is None else json.dumps(schema).encode()
    return Tool(name, parameters=parameters, param="tools[0].function", **changes)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_requests_of_real_clients_pass() -> None:
    tools = (
        Tool("get_weather", "Weather.", CITY, param="tools[0].function"),
        Tool("now", param="tools[1].function"),
        Tool("strict", parameters=STRICT, strict=True, param="tools[2].function"),
        Tool("apply_patch", custom=True, param="tools[3].custom", parameters=b"ignored"),
        Tool("anything", parameters=b"{}", param="tools[4].function"),
    )
    check_output_request(OutputRequest(tools, ToolChoice("required", ("now", "strict"))))
    check_output_request(OutputRequest(tools, ToolChoice("none")))
    check_output_request(OutputRequest(answer_format=AnswerFormat()))
    check_output_request(OutputRequest(answer_format=AnswerFormat(STRICT, "answer", strict=True)))
    check_output_request(OutputRequest(answer_format=AnswerFormat(b'{"type": "array"}', "answer")))
    check_output_request(OutputRequest(tuple(Tool(f"t{number}", parameters=CITY) for number in range(200))))


FUNCTION = "tools[0].function.parameters"

ERRORS: list[tuple[OutputRequest, str, str, str | None]] = [
    # The messages of OpenAI's API, from issues of openai-agents-python, openai-agents-mcp, camel and oh-my-pi.
    (
        OutputRequest((_tool("process_user", _object(), strict=True),)),
        (
            "Invalid schema for function 'process_user': In context=(), 'additionalProperties' is required to be "
            "supplied and to be false."
        ),
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest(
            (_tool("f", {**_object(a={"type": "string"}), "additionalProperties": False, "required": []}, strict=True),)
        ),
        (
            "Invalid schema for function 'f': In context=(), 'required' is required to be supplied and to be an array "
            "including every key in properties. Missing 'a'."
        ),
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest((_tool("f", {"type": "string"}),)),
        "Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"string\"'.",
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest((_tool("f", _object(a={"type": "strin"})),)),
        (
            "Invalid schema for function 'f': In context=('properties', 'a', 'type'), \"strin\" is not valid under any "
            "of the schemas listed in the 'anyOf' keyword."
        ),
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest((_tool("f", [1]),)),
        "Invalid schema for function 'f': The schema must be a JSON object.",
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest((_tool("f", _object(**{str(number): {} for number in range(10_000)})),)),
        "Invalid schema for function 'f': The schema has more than 10000 subschemas.",
        FUNCTION,
        "invalid_function_parameters",
    ),
    (
        OutputRequest(answer_format=AnswerFormat(b'{"anyOf": []}', "example", strict=True)),
        "Invalid schema for response_format 'example': In context=('anyOf',), [] has less than 1 item.",
        "response_format",
        "invalid_json_schema",
    ),
    (
        OutputRequest(
            answer_format=AnswerFormat(
                b'{"type": "object", "oneOf": [{"required": ["A"]}], "additionalProperties": false}',
                "example_schema",
                strict=True,
            )
        ),
        "Invalid schema for response_format 'example_schema': In context=(), 'oneOf' is not permitted.",
        "response_format",
        "invalid_json_schema",
    ),
    (
        OutputRequest(answer_format=AnswerFormat(CITY, "x" * 65, param="response_format.json_schema.schema")),
        (
            "Invalid 'response_format.json_schema.name': string too long. Expected a string with maximum length 64, "
            "but got a string with length 65 instead."
        ),
        "response_format.json_schema.name",
        "string_above_max_length",
    ),
    (
        OutputRequest(answer_format=AnswerFormat(CITY, "a b", param="response_format.json_schema.schema")),
        (
            "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a string that matches "
            "the pattern '^[a-zA-Z0-9_-]+$'."
        ),
        "response_format.json_schema.name",
        "invalid_value",
    ),
    (
        OutputRequest(
            tuple(_tool(f"f{index}", _object(**{str(number): {} for number in range(8_000)})) for index in range(3))
        ),
        "The schemas of the tools have more than 20000 subschemas. Send fewer tools.",
        "tools",
        None,
    ),
    (
        OutputRequest((Tool("f", parameters=b" " * (MAX_SCHEMAS + 1)),)),
        f"The schemas of the tools have {MAX_SCHEMAS + 1} bytes. The limit is {MAX_SCHEMAS}.",
        "tools",
        None,
    ),
]


@pytest.mark.parametrize(("output", "message", "param", "code"), ERRORS)
def test_errors(output: OutputRequest, message: str, param: str, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_output_request(output)
    error = raised.value
    assert (error.message, error.param, error.code, error.status) == (message, param, code, 400)


def test_validators() -> None:
    tool = tool_validator(Tool("f", parameters=CITY))
    assert tool is not None
    assert tool.errors(b'{"city": 1}') == ['city: this value is not of type "string"']
    assert tool_validator(Tool("f")) is None
    assert tool_validator(Tool("f", custom=True, parameters=CITY)) is None

    answer = format_validator(AnswerFormat(CITY))
    assert answer is not None
    assert answer.errors(b'{"city": "Paris"}') == []
    assert format_validator(AnswerFormat()) is None


def test_regular_expressions_count_as_many_subschemas() -> None:
    """18 000 of them would take 3 s to compile, without interruption."""
    schema = _object(**{f"p{number}": {"type": "string", "pattern": f"^[a-z]{number}$"} for number in range(18)})
    check_output_request(OutputRequest(tuple(_tool(f"t{number}", schema) for number in range(40))))
    with pytest.raises(InvalidRequest, match="more than 20000 subschemas"):
        check_output_request(OutputRequest(tuple(_tool(f"t{number}", schema) for number in range(1000))))


@pytest.mark.parametrize("key", ["pattern", "patternProperties"])
def test_regular_expressions_of_one_schema_are_limited(key: str) -> None:
    expressions = [f"{number}{{9,999}}" for number in range(50)]
    schema: Any = {"patternProperties": {expression: {} for expression in expressions}}
    if key == "pattern":
        schema = _object(**{f"p{number}": {"pattern": one} for number, one in enumerate(expressions)})
    with pytest.raises(InvalidRequest, match="too many regular expressions"):
        check_output_request(OutputRequest((_tool("f", schema),)))
