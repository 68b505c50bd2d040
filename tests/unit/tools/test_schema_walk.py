"""Walk the subschemas of a JSON schema, and measure them."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.tools.schema_walk import (
    MAX_HEIGHT,
    MAX_NODES,
    BadSchema,
    SchemaSize,
    SchemaTooComplex,
    all_schemas,
    measured,
    subschemas,
)


def test_subschemas_hold_for_the_value_or_for_its_parts() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "not": True},
        "anyOf": [{}, False],
        "not": {},
        "items": {},
        "prefixItems": [{}],
        "dependentSchemas": {"a": {}},
        "default": {"anyOf": []},
    }
    assert [(".".join(part.path), part.here) for part in subschemas(schema)] == [
        ("properties.a", False),
        ("properties.not", False),
        ("anyOf.0", True),
        ("anyOf.1", True),
        ("not", True),
        ("items", False),
        ("prefixItems.0", False),
        ("dependentSchemas.a", True),
    ]


def test_all_schemas_have_their_path() -> None:
    schema = {"properties": {"a": {"items": True}}, "$defs": {"b": {"not": {}}}, "definitions": 5}
    assert sorted(path for path, _ in all_schemas(schema)) == [
        (),
        ("$defs", "b"),
        ("$defs", "b", "not"),
        ("properties", "a"),
    ]


@pytest.mark.parametrize(
    ("schema", "size", "recursive"),
    [
        ({}, 1, False),
        ({"properties": {"a": True, "b": {}}}, 3, False),
        ({"pattern": "a(?:b|c)+?$"}, 51, False),
        ({"pattern": "(?=a)"}, 2_001, False),
        ({"pattern": r"(a)\1"}, 2_001, False),
        ({"pattern": 5}, 1, False),
        ({"patternProperties": {"a": {}, "b": {}}}, 103, False),
        ({"enum": list(range(100))}, 6, False),
        ({"prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"items": {}}}}, 7, False),
        ({"items": {"$ref": "#"}}, 3, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": True}}, 2, False),
        ({"$defs": {"unused": {"items": {}}}}, 1, False),
        ({"anyOf": [{"$ref": "#/$defs/a"}, {"not": {"$ref": "#/$defs/a"}}], "$defs": {"a": {}}}, 6, False),
    ],
)
def test_sizes(schema: Any, size: int, recursive: bool) -> None:
    assert measured(schema) == SchemaSize(size, recursive)


BAD: list[tuple[Any, tuple[str, ...], str]] = [
    ({"$ref": "http://example.com/a"}, (), "same schema"),
    ({"items": {"$ref": "file:///etc/passwd"}}, ("items",), "same schema"),
    ({"$ref": 5}, (), "same schema"),
    ({"properties": {"a": {"$ref": "#/$defs/b"}}}, ("properties", "a"), "does not exist"),
    ({"$ref": "#/type", "type": "string"}, (), "does not exist"),
    ({"$ref": "#anchor"}, (), "does not exist"),
    ({"$dynamicRef": "#a"}, (), "not supported"),
    ({"$defs": {"a": {"$anchor": "a"}}}, ("$defs", "a"), "not supported"),
    ({"properties": {"a": {"$id": "http://example.com"}}}, ("properties", "a"), "only supported at the top"),
    ({"items": {"id": "http://example.com"}}, ("items",), "only supported at the top"),
    ({"$ref": "#"}, (), "leads back"),
    ({"allOf": [{"$ref": "#"}]}, (), "leads back"),
    (
        {
            "items": {"$ref": "#/$defs/a"},
            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}},
        },
        (),
        "leads back",
    ),
    (
        # The way from a to b through "items" is found first.
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {"items": {"$ref": "#/$defs/b"}, "not": {"$ref": "#/$defs/b"}},
                "b": {"not": {"$ref": "#/$defs/a"}},
            },
        },
        (),
        "leads back",
    ),
]


@pytest.mark.parametrize(("schema", "path", "message"), BAD)
def test_bad_references(schema: Any, path: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadSchema, match=message) as raised:
        measured(schema)
    assert raised.value.path == path


def test_ids_that_change_nothing_are_accepted() -> None:
    assert measured({"$id": "http://example.com/a", "properties": {"$id": {"id": 5}}}).size == 2


def _chain(links: int, link: Any) -> dict[str, Any]:
    definitions = {f"d{number}": link({"$ref": f"#/$defs/d{number + 1}"}) for number in range(links)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{links}": {}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        _chain(18, lambda rest: {"oneOf": [rest, rest]}),  # 18 s in the validator
        _chain(5_000, lambda rest: {"properties": {"a": rest}}),
        _chain(5_000, lambda rest: {"allOf": [rest]}),
        _chain(45, lambda rest: {"anyOf": [rest]}) | {"items": _nested(MAX_HEIGHT + 1)},
        _nested(MAX_HEIGHT + 1),
        _nested(3 * MAX_HEIGHT),
        {"properties": {str(number): {} for number in range(MAX_NODES)}},
        {"prefixItems": [_chain(40, lambda rest: {"items": rest}), {"items": _nested(60)}]}
        | {"$defs": {f"d{number}": {"items": {"$ref": f"#/$defs/d{number + 1}"}} for number in range(60)} | {"d60": {}}}
        | {"$ref": "#/$defs/d0"},
    ],
)
def test_schemas_that_cost_too_much(schema: Any) -> None:
    with pytest.raises(SchemaTooComplex):
        measured(schema)


def test_large_schemas_of_real_tools_are_accepted() -> None:
    schema = {"properties": {str(number): {"anyOf": [{"type": "string"}, {"type": "null"}]} for number in range(3_000)}}
    assert measured(schema).size == 9_001
    assert measured(_nested(MAX_HEIGHT)).size == MAX_HEIGHT + 1


def test_the_height_counts_from_each_place_that_refers_to_a_schema() -> None:
    deep = {"$defs": {"a": _nested(60)}, "prefixItems": [{"$ref": "#/$defs/a"}, {"items": {"$ref": "#/$defs/a"}}]}
    assert measured(deep).size == 126
    below = _nested(60)
    innermost = below
    while "items" in innermost:
        innermost = innermost["items"]
    innermost["$ref"] = "#/$defs/a"
    with pytest.raises(SchemaTooComplex, match="levels"):
        measured({**deep, "contains": below})
