"""Refuse what OpenAI forbids in strict schemas."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.tools.schema_walk import BadSchema
from openai_dify_proxy.tools.strict_schemas import check_root, check_strict


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


GOOD: list[dict[str, Any]] = [
    _object(),
    {"type": "object", "additionalProperties": False},
    # The examples of OpenAI's guide: a union, definitions, recursion, and constraints.
    _object(item={"anyOf": [_object(name={"type": "string", "description": "The name"}), {"type": "null"}]}),
    {
        **_object(steps={"type": "array", "items": {"$ref": "#/$defs/step"}}),
        "$defs": {"step": _object(a={"type": "string"})},
    },
    _object(children={"type": "array", "items": {"$ref": "#"}}, kind={"type": "string", "enum": ["div", "button"]}),
    _object(
        username={"type": "string", "pattern": "^@[a-z]+$"},
        email={"type": "string", "format": "email"},
        celsius={"type": ["number", "null"], "minimum": -130, "multipleOf": 0.1},
        tags={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
    ),
    {"$ref": "#/$defs/node", "$defs": {"node": _object(next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})}},
    _object(a={"const": 1}, b={"enum": [1, "x"]}, pair={"type": "array", "prefixItems": [{"type": "string"}]}),
]


@pytest.mark.parametrize("schema", GOOD)
def test_schemas_of_the_guide(schema: dict[str, Any]) -> None:
    check_strict(schema)


BAD: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({}, (), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."),
    ({"type": "array"}, (), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
    ({"anyOf": [_object()]}, (), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": True}},
        (),
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'.",
    ),
    (
        {"type": ["object", "null"]},
        (),
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"['object', 'null']\"'.",
    ),
    ({**_object(), "anyOf": [{"type": "string"}]}, (), "'anyOf' is not permitted at the top of the schema."),
    ({"type": "object"}, (), "'additionalProperties' is required to be supplied and to be false."),
    (
        _object(body={"type": "object", "additionalProperties": True}),
        ("properties", "body"),
        "'additionalProperties' is required to be supplied and to be false.",
    ),
    (
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        (),
        "'required' is required to be supplied and to be an array including every key in properties. Missing 'a'.",
    ),
    ({**_object(), "required": ["b"]}, (), "Extra required key 'b' supplied."),
    (_object(a={}), ("properties", "a"), "schema must have a 'type' key."),
    (_object(a={"type": "array"}), ("properties", "a"), "array schema missing items."),
    (_object(a={"oneOf": [{"type": "string"}]}), ("properties", "a"), "'oneOf' is not permitted."),
    (
        _object(a={"type": ["string", "object"], "propertyNames": {"type": "string"}}),
        ("properties", "a"),
        "'propertyNames' is not permitted.",
    ),
    ({**_object(), "$defs": {"a": {"allOf": []}}}, ("$defs", "a"), "'allOf' is not permitted."),
]


@pytest.mark.parametrize(("schema", "path", "message"), BAD)
def test_forbidden_schemas(schema: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadSchema) as raised:
        check_strict(schema)
    assert (str(raised.value), raised.value.path) == (message, path)


def test_other_schemas_need_no_type() -> None:
    check_root({}, strict=False)
    check_root({"type": ["object", "null"]}, strict=False)
    with pytest.raises(BadSchema, match="got 'type: \"string\"'"):
        check_root({"type": "string"}, strict=False)
