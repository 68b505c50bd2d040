"""Compile schemas, and check values against them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_dify_proxy.tools.schema_walk import BadSchema, SchemaTooComplex
from openai_dify_proxy.tools.schemas import MAX_SCHEMA, MAX_VALUE, Validator, compile_schema


def _compile(schema: Any) -> Validator:
    return compile_schema(json.dumps(schema).encode())


def _errors(schema: Any, value: Any) -> list[str]:
    return _compile(schema).errors(json.dumps(value).encode())


FORECAST = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["c", "f"]},
        "days": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        "stops": {
            "type": "array",
            "items": {
                "anyOf": [
                    {"type": "object", "properties": {"kind": {"const": "rail"}}, "required": ["kind", "line"]},
                    {"type": "object", "properties": {"kind": {"const": "air"}}, "required": ["kind"]},
                ]
            },
        },
    },
    "required": ["city"],
    "additionalProperties": False,
}

MESSAGES: list[tuple[Any, list[str]]] = [
    ({"city": "Paris", "unit": "c", "days": None, "stops": [{"kind": "air"}]}, []),
    ({}, ['"city" is a required property']),
    ([], ['this value is not of type "object"']),
    ({"city": 5}, ['city: this value is not of type "string"']),
    ({"city": "Paris", "unit": "k"}, ['unit: this value is not one of "c" or "f"']),
    ({"city": "Paris", "days": 0}, ["days: this value is less than the minimum of 1"]),
    (
        {"city": "Paris", "days": "1"},
        ['days: this value is not of type "integer"; or this value is not of type "null"'],
    ),
    ({"city": "Paris", "x": 1}, ["Additional properties are not allowed ('x' was unexpected)"]),
    (
        {"city": "Paris", "stops": [{"kind": "air"}, {"kind": "rail"}]},
        ['stops[1]: "line" is a required property; or kind: "air" was expected'],
    ),
]


@pytest.mark.parametrize(("value", "messages"), MESSAGES)
def test_messages_name_the_place_and_the_fault(value: Any, messages: list[str]) -> None:
    assert _errors(FORECAST, value) == messages


def test_at_most_five_errors_are_listed() -> None:
    assert len(_errors({"items": {"type": "string"}}, list(range(100)))) == 5


def test_messages_are_short_and_contain_no_value() -> None:
    secret = "secret" * 100
    messages = _errors({"properties": {secret: {"type": "integer"}}, "items": {"type": "integer"}}, {secret: secret})
    assert len(messages) == 1
    assert len(messages[0]) < 700
    assert "secret" not in _errors({"type": "integer"}, secret)[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b'{"a": 1,}', "This is not valid JSON: trailing comma in object (byte 8)."),
        (b'{"a": "', "This is not valid JSON: Input data was truncated."),
        (b'"\xff"', "This is not valid JSON: "),
        (b"1e999", "This is not valid JSON: Number out of range."),
        (b"[" * 100_000, "The JSON is nested more than 200 levels deep."),
        (b"[" * 201 + b"]" * 201, "The JSON is nested more than 200 levels deep."),
        (b" " * (MAX_VALUE + 1), f"The JSON is longer than {MAX_VALUE} bytes."),
    ],
)
def test_values_that_cannot_be_read(value: bytes, message: str) -> None:
    (told,) = _compile({}).errors(value)
    assert told.startswith(message)


def test_formats_are_annotations() -> None:
    assert _errors({"type": "string", "format": "date-time"}, "tomorrow") == []
    assert _errors({"type": "string", "format": "no-such-format"}, "x") == []


def test_nullable_adds_null() -> None:
    schema = {"properties": {"a": {"type": "string", "nullable": True, "enum": ["x"]}, "b": {"nullable": True}}}
    assert _errors(schema, {"a": None, "b": None}) == []
    assert _errors({"type": "null", "nullable": True, "enum": [None]}, None) == []
    assert len(_errors(schema, {"a": 5})) == 2
    assert _errors({"type": "string", "nullable": True}, None) == []


def test_dialects() -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert _errors(old, ["a", 1]) == []
    assert _errors(old, [1]) == ['[0]: this value is not of type "string"']
    assert _errors({"$schema": "https://example.com/unknown", "type": "string"}, "a") == []


def test_recursive_schemas() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert _errors(tree, {"children": [{"children": []}, {}]}) == []
    assert _errors(tree, {"children": [{"children": [5]}]}) == [
        'children[0].children[0]: this value is not of type "object"'
    ]


BAD: list[tuple[bytes, tuple[str, ...], str]] = [
    (b"{", (), "not valid JSON"),
    (b"[" * 100_000, (), "not valid JSON"),
    (b'"\xff"', (), "not valid JSON"),
    (b"[]", (), "must be a JSON object"),
    (b"true", (), "must be a JSON object"),
    (b'{"type": "strin"}', ("type",), '"strin" is not valid'),
    (b'{"properties": {"a": 5}}', ("properties", "a"), "5 is not of types"),
    (b'{"properties": {"a": {"required": true}}}', ("properties", "a", "required"), "true is not of type"),
    (b'{"minimum": "1"}', ("minimum",), '"1" is not of type "number".'),
    (b'{"pattern": "("}', ("pattern",), '"\\(" is not a "regex".'),
    (b'{"properties": {"a": {"$ref": "https://example.com/x"}}}', ("properties", "a"), "same schema"),
    (b'{"$ref": "#/x", "x": {"$ref": "https://example.com/x"}}', (), "other documents are not fetched"),
    (b'{"$ref": "#/x", "x": {"$ref": "file:///etc/passwd"}}', (), "other documents are not fetched"),
]


@pytest.mark.parametrize(("schema", "path", "message"), BAD)
def test_bad_schemas(schema: bytes, path: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadSchema, match=message) as raised:
        compile_schema(schema)
    assert raised.value.path == path


def test_schemas_that_are_too_long() -> None:
    with pytest.raises(SchemaTooComplex, match="bytes"):
        compile_schema(b'{"description": "%s"}' % (b"x" * MAX_SCHEMA))


def test_compiled_schemas_are_reused() -> None:
    small, large = b'{"type": "string"}', b'{"type": "string", "description": "%s"}' % (b"x" * 10_000)
    for schema in (small, large):
        assert compile_schema(schema) is compile_schema(bytes(bytearray(schema)))


def test_errors_of_a_large_value_are_summed_up() -> None:
    # A report of all of them would take seconds.
    assert _errors({"items": {"type": "string"}}, [1] * 200_000) == ["The JSON does not match its schema."]
    assert _errors({"items": {"type": "string"}}, ["a"] * 200_000) == []


def test_exponential_validation_is_refused() -> None:
    branch = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    schema = {"oneOf": [branch, {**branch, "required": ["b"]}]}
    value: Any = 1
    for _ in range(100):
        value = {"a": value}
    assert _errors(schema, value) == ["The JSON is too large for its schema."]
    assert _errors(schema, value["a"]) == ["The JSON is too large for its schema."]


def test_values_in_a_wide_union() -> None:
    schema = {"items": {"anyOf": [{"const": f"c{number}"} for number in range(1_000)]}}
    assert _errors(schema, ["c999"] * 5_000) == []
    assert _errors(schema, ["x"] * 2_000) == ["The JSON does not match its schema."]
    assert _errors(schema, ["x"]) == ['[0]: "c0" was expected; or "c1" was expected; or "c2" was expected']


def test_regular_expressions_cannot_stall() -> None:
    assert _errors({"pattern": "^(a+)+$"}, "a" * 100_000 + "b") != []
    assert _errors({"pattern": "^(?=(a+)+$)a"}, "a" * 1_000 + "b") != []
    many = {"properties": {str(number): {"pattern": f"^(?=(a+)+$){{{number}}}a"} for number in range(1_000)}}
    with pytest.raises(SchemaTooComplex):
        _compile(many)
    assert _errors({"items": {"pattern": "^(?=(a+)+$)a"}}, ["a" * 50 + "b"] * 10_000) == [
        "The JSON is too large for its schema."
    ]


def test_large_regular_expressions_are_annotations() -> None:
    validator = compile_schema(b'{"properties": {"a": {"type": "string", "pattern": "^(?!x)[\\\\w\\\\s]{1,255}$"}}}')
    assert validator.errors(b'{"a": "x"}') == []
    assert validator.errors(b'{"a": 1}')


@pytest.mark.parametrize("other", ['"pattern": "a{1,2}["', '"pattern": "(?!x)[\\\\w ]{1,255}", "type": "strin"'])
def test_invalid_regular_expressions_are_errors(other: str) -> None:
    with pytest.raises(BadSchema):
        compile_schema(b'{"properties": {"a": {%b}}}' % other.encode())
