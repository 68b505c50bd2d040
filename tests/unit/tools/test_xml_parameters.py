"""The types of parameters that are written without quotes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_dify_proxy.tools.xml_parameters import ParameterTypes
from openai_dify_proxy.translate.turn_request import Tool

SCHEMAS: list[tuple[Any, str, Any]] = [
    ({"type": "string"}, "12", "12"),
    ({"type": "string"}, "null", "null"),
    ({"type": ["string", "null"]}, "null", None),
    ({"type": ["string", 1]}, "true", "true"),
    ({"type": "integer"}, "12", 12),
    ({"type": "integer"}, "twelve", "twelve"),
    ({"type": "number"}, " 1.5\n", 1.5),
    ({"type": "boolean"}, "True", True),
    ({"type": "object"}, "{'a': 1,}", {"a": 1}),
    ({"type": "array"}, "[1, 2]", [1, 2]),
    ({"type": "array"}, "[1, 2", "[1, 2"),
    ({"enum": ["1", "2"]}, "1", "1"),
    ({"enum": [1, 2]}, "1", 1),
    ({"enum": ["a", None]}, "None", None),
    ({"const": "1"}, "1", "1"),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, "3", "3"),
    ({"allOf": [{"$ref": "#/$defs/count"}]}, "3", 3),
    ({"$ref": "#/$defs/a~1b~0"}, "3", "3"),
    ({"$ref": "#/$defs/loop"}, "3", "3"),
    ({"$ref": "#/properties/nothing/x"}, "3", "3"),
    ({"$ref": "other.json"}, "3", "3"),
    (None, "3", "3"),
    (None, '{"a": 1}', {"a": 1}),
    ({"type": "integer"}, '"3"', '"3"'),
]


@pytest.mark.parametrize(("schema", "text", "value"), SCHEMAS)
def test_a_parameter_has_the_type_of_its_schema(schema: Any, text: str, value: Any) -> None:
    definitions = {"count": {"type": "integer"}, "a/b~": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}
    parameters = json.dumps({"properties": {"x": schema}, "$defs": definitions}).encode()
    assert json.loads(ParameterTypes(Tool("t", parameters=parameters)).arguments([("x", text)])) == {"x": value}


@pytest.mark.parametrize("parameters", [None, b"{", b"[]", b'{"properties": []}', b"[" * 100_000])
def test_without_a_usable_schema_parameters_are_strings(parameters: bytes | None) -> None:
    types = ParameterTypes(Tool("t", parameters=parameters))
    assert types.arguments([("x", "\n3\n"), ("y", '"'), ("x", "4")]) == '{"x": "3", "y": "\\""}'
