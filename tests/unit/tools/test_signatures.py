"""Write JSON schemas as compact types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_dify_proxy.tools.signatures import example_value, pointed, required_names, tool_signature, type_text
from openai_dify_proxy.translate.turn_request import Tool

TYPES: list[tuple[Any, str]] = [
    (True, "any"),
    (False, "never"),
    ({}, "any"),
    (5, "any"),
    ({"type": "string"}, "string"),
    ({"type": "whatever"}, "any"),
    ({"type": 5}, "any"),
    ({"type": ["string", "null", "string"]}, "string | null"),
    ({"type": "string", "nullable": True}, "string | null"),
    ({"type": ["string", "null"], "nullable": True}, "string | null"),
    ({"nullable": True}, "any"),
    ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
    ({"enum": []}, "any"),
    ({"const": {"a": 1}}, '{"a":1}'),
    ({"type": "array"}, "any[]"),
    ({"items": {"type": "integer"}}, "integer[]"),
    ({"type": "array", "items": {"type": ["integer", "null"]}}, "(integer | null)[]"),
    ({"prefixItems": [{"type": "string"}, {"type": "number"}]}, "[string, number]"),
    ({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}, "[string, ...number[]]"),
    ({"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "null"}}, "[string, ...null[]]"),
    ({"type": "array", "prefixItems": []}, "any[]"),
    ({"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "string"}]}, "string | null"),
    ({"oneOf": [{"type": "string"}, {}]}, "string | any"),
    ({"anyOf": []}, "any"),
    ({"allOf": [{"type": "string"}]}, "string"),
    (
        {"type": "object", "properties": {"a": {}}, "oneOf": [{"type": "string"}, {"type": "null"}]},
        "{ a?: any } & (string | null)",
    ),
    (
        {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {}}, "required": ["b"]}]},
        "{ a?: string } & { b: any }",
    ),
    ({"type": "array", "items": {"allOf": [{"type": "string"}, {"const": 1}]}}, "(string & 1)[]"),
    ({"type": "object"}, "{ [key: string]: any }"),
    ({"type": "object", "additionalProperties": False}, "{}"),
    ({"additionalProperties": {"type": "integer"}}, "{ [key: string]: integer }"),
    ({"patternProperties": {"^x": {"type": "integer"}}}, "{ [key: string]: integer }"),
    ({"properties": {"a": {}}, "additionalProperties": True}, "{ a?: any; [key: string]: any }"),
    ({"properties": {"a-b": {}}, "required": ["a-b", 5]}, '{ "a-b": any }'),
    ({"properties": {"a": {}}, "required": "a"}, "{ a?: any }"),
    ({"type": "object", "properties": 5}, "{ [key: string]: any }"),
    ({"$ref": "#/nowhere"}, "any"),
    ({"$ref": "http://example.com/schema"}, "any"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "a\ntype a = string"),
    ({"$ref": "#/$defs/%C3%A9-", "$defs": {"é-": {"type": "string"}}}, "_C3_A9_\ntype _C3_A9_ = string"),
    ({"type": "array", "items": {"$ref": "#"}}, "Answer[]\ntype Answer = Answer[]"),
    (
        {
            "prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/x/a"}, {"$ref": "#/$defs/a"}],
            "$defs": {"a": {}},
            "x": {"a": 1},
        },
        "[a, a_2, a]\ntype a = any\ntype a_2 = any",
    ),
]


@pytest.mark.parametrize(("schema", "text"), TYPES)
def test_the_type_of_a_schema(schema: Any, text: str) -> None:
    assert type_text(json.dumps(schema).encode()) == text


def test_constraints_and_descriptions_are_comments() -> None:
    schema = {
        "type": "object",
        "required": ["city", "nested"],
        "properties": {
            "city": {"type": "string", "description": "The city.", "minLength": 2, "pattern": "^[A-Z]"},
            "day": {"type": "string", "format": "date", "default": "today"},
            "few": {"type": "array", "items": {"type": "string"}, "maxItems": 3, "uniqueItems": True},
            "some": {"type": "array", "items": True, "minItems": 1, "maxItems": 3},
            "n": {"type": "number", "minimum": 0, "exclusiveMaximum": 1.5, "multipleOf": 0.5, "maximum": True},
            "long": {"type": "string", "description": "First.\n\n  Second.\n", "maxLength": 9},
            "nested": {"type": "object", "description": "Parts.", "properties": {"a": {"description": "A."}}},
            "plain": True,
        },
    }
    assert type_text(json.dumps(schema).encode()) == (
        "{\n"
        "  city: string // The city. (pattern ^[A-Z], at least 2 characters)\n"
        '  day?: string // format date, default "today"\n'
        "  few?: string[] // at most 3 items, no duplicates\n"
        "  some?: any[] // 1 to 3 items\n"
        "  n?: number // ≥ 0, < 1.5, multiple of 0.5\n"
        "  // First.\n"
        "  //   Second.\n"
        "  // at most 9 characters\n"
        "  long?: string\n"
        "  // Parts.\n"
        "  nested: {\n"
        "    a?: any // A.\n"
        "  }\n"
        "  plain?: any\n"
        "}"
    )


def test_a_long_object_has_a_line_for_each_property() -> None:
    schema = {"properties": {f"property_{number}": {"type": "string"} for number in range(4)}}
    assert type_text(json.dumps(schema).encode()).count("\n") == 5


@pytest.mark.parametrize("schema", [b"{", b"", b"[" * 100_000, b"\xff"])
def test_a_schema_that_is_no_json_has_any_value(schema: bytes) -> None:
    assert type_text(schema) == "any"


def test_deep_schemas_end_in_any() -> None:
    schema: Any = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    assert type_text(json.dumps(schema).encode()).replace("[]", "") == "any"


def test_a_type_that_is_used_often_is_written_once() -> None:
    # Written at each place, the last type would occur 2^40 times.
    defs: dict[str, Any] = {
        f"d{number}": {"properties": {"a": {"$ref": f"#/$defs/d{number + 1}"}, "b": {"$ref": f"#/$defs/d{number + 1}"}}}
        for number in range(40)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": defs | {"d40": {"type": "string"}}}
    assert len(type_text(json.dumps(schema).encode()).splitlines()) == 42


def test_tools() -> None:
    schema = b'{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    assert tool_signature(Tool("get_weather", "Get the\nweather.", schema)) == (
        "// Get the\n// weather.\nget_weather({ city: string })"
    )
    assert tool_signature(Tool("now")) == "now({})"
    assert tool_signature(Tool("tree", parameters=b'{"properties": {"child": {"$ref": "#"}}}')) == (
        "tree({ child?: Arguments })\ntype Arguments = { child?: Arguments }"
    )
    assert tool_signature(Tool("patch", "Edit.", custom=True)) == "// Edit.\npatch(free text)"
    assert tool_signature(Tool("patch", custom=True, grammar="start: x\n")) == (
        "patch(free text)\nThe text follows this grammar:\nstart: x"
    )


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, "..."),
        ({}, "..."),
        ({"const": 5}, 5),
        ({"default": None}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"enum": [], "type": "string"}, "..."),
        ({"examples": ["Paris"], "enum": ["b"]}, "Paris"),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "unknown"}, "..."),
        ({"properties": {}}, {}),
    ],
)
def test_examples(schema: Any, value: Any) -> None:
    assert example_value(schema) == value


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("#", {"a/b": [{"~": 1}], "ü": 2}),
        ("#/a~1b/0", {"~": 1}),
        ("#/a~1b/0/~0", 1),
        ("#/%C3%BC", 2),
        ("#/a~1b/1", None),
        ("#/a~1b/x", None),
        ("#/a~1b/99999999999", None),
        ("#/ü/x", None),
        ("#anchor", None),
        ("other.json", None),
    ],
)
def test_pointers(reference: str, target: Any) -> None:
    assert pointed({"a/b": [{"~": 1}], "ü": 2}, reference) == target


def test_required_names() -> None:
    assert required_names({"required": ["a", 1]}) == {"a"}
    assert required_names({"required": "a"}) == set()
