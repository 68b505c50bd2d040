"""JSON schemas of structs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from openai_dify_proxy.api.openapi.schemas import components_of, reference


class Inner(Struct, tag="inner"):
    """The inner struct: ``text`` has one letter.

    Further words.
    """

    text: Annotated[str, Meta(min_length=1, max_length=1, pattern="^x")] = "x"


class Outer(Struct):
    kind: Literal["outer"]
    choice: Literal["a", "b"] = "a"
    flag: Literal[True] = True
    raw: Raw = Raw(b"null")
    number: Annotated[float, Meta(ge=0, le=2)] | None = None
    whole: int = 3
    sure: bool = False
    items: Annotated[list[Inner], Meta(max_length=4)] = field(default_factory=list)
    names: dict[str, int] | UnsetType = UNSET
    anything: dict[str, Any] | UnsetType = UNSET
    one: Inner | str | None = None


class Sparse(Struct, omit_defaults=True):
    left: int | None = None


PROPERTIES: dict[str, dict[str, object]] = {
    "kind": {"type": "string", "const": "outer"},
    "choice": {"type": "string", "enum": ["a", "b"]},
    "flag": {"type": "boolean", "const": True},
    "raw": {},
    "number": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 2}, {"type": "null"}]},
    "whole": {"type": "integer"},
    "sure": {"type": "boolean"},
    "items": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}, "maxItems": 4},
    "names": {"type": "object", "additionalProperties": {"type": "integer"}},
    "anything": {"type": "object"},
    "one": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "string"}, {"type": "null"}]},
}


def test_an_answer_requires_what_is_always_sent() -> None:
    components = components_of([], [Outer, Sparse])
    assert components == {
        "Inner": {
            "type": "object",
            "description": "The inner struct: `text` has one letter.",
            "properties": {
                "type": {"type": "string", "const": "inner"},
                "text": {"type": "string", "minLength": 1, "maxLength": 1, "pattern": "^x"},
            },
            "required": ["type", "text"],
        },
        "Outer": {
            "type": "object",
            "properties": PROPERTIES,
            "required": ["kind", "choice", "flag", "raw", "number", "whole", "sure", "items", "one"],
        },
        "Sparse": {"type": "object", "properties": {"left": {"type": ["integer", "null"]}}},
    }


def test_a_request_requires_what_has_no_default() -> None:
    components = components_of([Outer], [Outer, Inner])
    defaults: dict[str, object] = {"choice": "a", "flag": True, "whole": 3, "sure": False}
    assert components["Outer"] == {
        "type": "object",
        "properties": {
            name: schema | ({"default": defaults[name]} if name in defaults else {})
            for name, schema in PROPERTIES.items()
        },
        "required": ["kind"],
    }
    assert components["Inner"]["required"] == ["type"]


def test_references() -> None:
    assert reference(Outer) == {"$ref": "#/components/schemas/Outer"}
    assert reference(Outer | Sparse) == {
        "anyOf": [{"$ref": "#/components/schemas/Outer"}, {"$ref": "#/components/schemas/Sparse"}]
    }


def test_two_structs_with_one_name_are_a_mistake() -> None:
    other = type("Inner", (Struct,), {"__annotations__": {"other": int}})
    with pytest.raises(ValueError, match="two structs have the name Inner"):
        components_of([Inner], [other])
