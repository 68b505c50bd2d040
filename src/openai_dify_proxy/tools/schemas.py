"""Compiles JSON schemas, and checks values against them.

The validator never fetches a document, takes formats as annotations, and is measured before it runs
(``schema_walk``, ``validation_cost``). OpenAPI's ``nullable`` adds ``null`` to a type.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import DecodeError, json

from openai_dify_proxy.tools.schema_walk import (
    MAX_NODES,
    BadSchema,
    SchemaTooComplex,
    all_schemas,
    clipped,
    compile_cost,
    measured,
)
from openai_dify_proxy.tools.signatures import pointed
from openai_dify_proxy.tools.validation_cost import MAX_DEPTH, validation_cost, value_size

MAX_SCHEMA = 512 * 1024
"""Bytes of a schema."""

MAX_VALUE = 4 * 1024 * 1024
"""Bytes of a value that is checked."""

_MAX_CHECK = 8_000_000
"""Subschemas that a check may visit: about 0.1 s."""

_MAX_REPORT = 12_000
"""Subschemas that a report of the errors may visit: it takes a thousand times longer."""

_SMALL = 8 * 1024


class Validator:
    """A compiled schema. ``root`` is the decoded schema, which must not be changed; ``nodes`` counts its subschemas.

    A regular expression counts as many subschemas, since it takes as long to compile.
    """

    __slots__ = ("_compiled", "_recursive", "_size", "nodes", "root")

    def __init__(self, schema: bytes) -> None:
        self.root, self.nodes = _parsed(schema)
        self._size, self._recursive = measured(self.root)
        # Loads jsonschema-rs, which takes 3 MB that servers without schemas save.
        from openai_dify_proxy.tools.compiled_schema import CompiledSchema  # noqa: PLC0415

        self._compiled = CompiledSchema(self.root)

    def errors(self, value: bytes) -> list[str]:
        """Return what is wrong with a JSON value, at most five messages; none if it is valid.

        A message has the path of the place, such as ``days[0].city``, and no value, so that it may be logged.
        """
        if len(value) > MAX_VALUE:
            return [f"The JSON is longer than {MAX_VALUE} bytes."]
        try:
            parsed = json.decode(value)
        except (DecodeError, UnicodeDecodeError) as error:
            return [f"This is not valid JSON: {clipped(str(error).removeprefix('JSON is malformed: '))}."]
        except RecursionError:
            return [_TOO_DEEP]
        return self._errors_of(parsed)

    def names_any(self, value: dict[str, Any]) -> bool:
        """Return whether ``value`` has a property that the schema names; true if it names none."""
        top: Any = self.root
        while isinstance(top, dict) and isinstance(top.get("$ref"), str):  # not in a circle: ``measured`` rejects that
            top = pointed(self.root, top["$ref"])
        properties = top.get("properties") if isinstance(top, dict) else None
        return not isinstance(properties, dict) or not properties or not properties.keys().isdisjoint(value)

    def _errors_of(self, value: Any) -> list[str]:
        count, depth = value_size(value)
        if depth > MAX_DEPTH:
            return [_TOO_DEEP]
        bound = None if self._recursive else self._size * count
        if not _within(_MAX_CHECK, bound) and not _within(_MAX_CHECK, validation_cost(self.root, value, 1)):
            return ["The JSON is too large for its schema."]
        if self._compiled.accepts(value):
            return []
        if not _within(_MAX_REPORT, validation_cost(self.root, value, 2)):
            return ["The JSON does not match its schema."]
        return self._compiled.errors(value)


_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} levels deep."


def compile_schema(schema: bytes) -> Validator:
    """Return the validator of a JSON schema, from a cache if it was compiled before.

    Raises ``BadSchema`` for an invalid schema, and ``SchemaTooComplex`` for one that costs too much.
    """
    if len(schema) > MAX_SCHEMA:
        raise SchemaTooComplex(f"The schema is longer than {MAX_SCHEMA} bytes.")
    return _compile_small(schema) if len(schema) <= _SMALL else _compile_large(schema)


# Two caches bound the memory, since compiled schemas are several times larger than their JSON.
_compile_small = lru_cache(maxsize=1024)(Validator)
_compile_large = lru_cache(maxsize=16)(Validator)


def _parsed(schema: bytes) -> tuple[dict[str, Any], int]:
    try:
        root = json.decode(schema)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadSchema("The schema is not valid JSON, or nested too deeply.") from error
    if not isinstance(root, dict):
        raise BadSchema("The schema must be a JSON object.")
    nodes = 0
    for _, schema_object in all_schemas(root):
        _allow_null(schema_object)
        nodes += compile_cost(schema_object)
    if nodes > MAX_NODES:
        raise SchemaTooComplex("The schema has too many regular expressions.")
    return root, nodes


def _allow_null(schema: dict[str, Any]) -> None:
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        schema["type"] = list({schema["type"]: 0, "null": 0})
        if isinstance(schema.get("enum"), list):
            schema["enum"] = [*schema["enum"], *([] if None in schema["enum"] else [None])]


def _within(limit: int, cost: int | None) -> bool:
    return cost is not None and cost <= limit
