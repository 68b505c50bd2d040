"""Checks that a schema is one that OpenAI accepts with ``strict: true``.

Sources: OpenAI's guide "Structured outputs", section "Supported schemas", and the messages of its API, which
https://github.com/openai/openai-agents-python/issues/1023 and similar reports quote. Keywords that OpenAI has come to
accept, or that only annotate, are accepted.
"""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.tools.schema_walk import BadSchema, all_schemas
from openai_dify_proxy.tools.signatures import pointed

_NOT_PERMITTED = (
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
)
_TYPED = ("type", "anyOf", "enum", "const", "$ref")


def check_root(root: dict[str, Any], *, strict: bool) -> None:
    """Raise ``BadSchema`` if the schema is for anything but an object; with ``strict`` it must say so itself."""
    top: Any = root
    while isinstance(top, dict) and isinstance(top.get("$ref"), str) and "type" not in top:
        top = pointed(root, top["$ref"])
    kind = top.get("type") if isinstance(top, dict) else None
    if kind == "object" or (isinstance(kind, list) and "object" in kind and not strict):
        return
    if kind is not None or strict:
        raise BadSchema(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.")


def check_strict(root: dict[str, Any]) -> None:
    """Raise ``BadSchema`` at the first place that OpenAI forbids."""
    check_root(root, strict=True)
    if "anyOf" in root:
        raise BadSchema("'anyOf' is not permitted at the top of the schema.")
    for path, schema in all_schemas(root):
        _check(path, schema)


def _check(path: tuple[str, ...], schema: dict[str, Any]) -> None:
    for key in _NOT_PERMITTED:
        if key in schema:
            raise BadSchema(f"'{key}' is not permitted.", path)
    if not any(key in schema for key in _TYPED):
        raise BadSchema("schema must have a 'type' key.", path)
    kinds = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    if "object" in kinds:
        _check_object(path, schema)
    if "array" in kinds and "items" not in schema and "prefixItems" not in schema:
        raise BadSchema("array schema missing items.", path)


def _check_object(path: tuple[str, ...], schema: dict[str, Any]) -> None:
    if schema.get("additionalProperties") is not False:
        raise BadSchema("'additionalProperties' is required to be supplied and to be false.", path)
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    for name in properties:
        if name not in required:
            raise BadSchema(
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{name}'.",
                path,
            )
    for name in required:
        if name not in properties:
            raise BadSchema(f"Extra required key '{name}' supplied.", path)
