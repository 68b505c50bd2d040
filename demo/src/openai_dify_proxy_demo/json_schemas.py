"""Finds the JSON that a question itself asks for: a JSON Schema in its text, or the names of keys."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from openai_dify_proxy_demo.tool_definitions import Definition
from openai_dify_proxy_demo.type_texts import Type

MAX_OBJECTS = 20
"""The number of JSON objects in a question that may be its schema."""

MAX_DEPTH = 20

_OBJECT = re.compile(r"^[ \t]*+(?=\{)", re.MULTILINE)
_KEYS = re.compile(r"\b(?:keys?|fields?)\b")
_KEY = re.compile(r"(?<!\w)(['\"`])([A-Za-z_]\w{0,99})\1(?!\w)")
_WORDS = frozenset({"string", "number", "integer", "boolean", "null"})
_REFERENCES = ("#/$defs/", "#/definitions/")
_ANY = Type("name", "any")

_decode = json.JSONDecoder().raw_decode


def read_schema(text: str) -> tuple[Definition, str] | None:
    """Return the type of the first JSON Schema of an object that begins a line, and the text around it."""
    if '"properties"' not in text:
        return None
    for found in islice(_OBJECT.finditer(text), MAX_OBJECTS):
        try:
            schema, end = _decode(text, found.end())
        except (ValueError, RecursionError):
            continue
        if isinstance(schema.get("properties"), dict):
            named = {**_dict(schema, "definitions"), **_dict(schema, "$defs")}
            kind = Definition(_type({"type": "object", **schema}), {name: _type(part) for name, part in named.items()})
            return kind, f"{text[: found.start()]}\n{text[end:]}"
    return None


def read_keys(text: str) -> Definition | None:
    """Return the type of an object with the keys that a text quotes, if it speaks of keys or fields."""
    names = [found[2] for found in islice(_KEY.finditer(text), MAX_OBJECTS)] if _KEYS.search(text) else []
    return (
        Definition(Type("object", members={name: (Type("name", "string"), True) for name in names})) if names else None
    )


def _type(schema: Any, depth: int = 0) -> Type:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return _ANY
    if isinstance(reference := schema.get("$ref"), str):
        return Type("name", reference.removeprefix(_REFERENCES[0]).removeprefix(_REFERENCES[1]))
    if "const" in schema:
        return Type("literal", schema["const"])
    if isinstance(choices := schema.get("enum"), list) and choices:
        return Type("union", parts=tuple(Type("literal", choice) for choice in choices))
    parts = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(parts, list) and parts:
        return Type("union", parts=tuple(_type(part, depth + 1) for part in parts))
    return _named_type(schema, depth)


def _named_type(schema: dict[str, Any], depth: int) -> Type:
    """Return the type that the keyword `type` names."""
    match schema.get("type"):
        case "object":
            required = schema.get("required")
            needed = set(map(str, required)) if isinstance(required, list) else set()
            members = _dict(schema, "properties").items()
            return Type("object", members={name: (_type(part, depth + 1), name in needed) for name, part in members})
        case "array":
            return Type("array", parts=(_type(schema.get("items"), depth + 1),))
        case "null":
            return Type("literal")
        case str(word) if word in _WORDS:
            return Type("name", word)
        case _:
            return _ANY


def _dict(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword)
    return value if isinstance(value, dict) else {}
