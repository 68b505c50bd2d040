"""Walks the subschemas of a JSON schema, and measures what they cost.

A validator visits a subschema once for each path that leads to it, and compiled schemas run without interruption. So
both the schema and each validation are measured before: shared references and unions multiply the work, up to
exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from openai_dify_proxy.tools.signatures import pointed

MAX_NODES = 10_000
"""Subschemas as written: about 0.1 s."""

MAX_HEIGHT = 100
"""Nesting of a schema, with its references followed."""

MAX_SIZE = 200_000
"""Subschemas with all references replaced by their targets."""

MAX_MESSAGE = 300
"""Characters of a message, which may quote a schema and the names of properties."""

_HERE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}
_BELOW = {
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
}
_MAPS = {"properties", "patternProperties", "dependentSchemas", "dependencies"}
_DEFINITIONS = ("$defs", "definitions")
_REFUSED = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$recursiveAnchor")

_PATTERN_COST = 50
"""A regular expression costs as much as this many other keywords."""

_BACKTRACKING_COST = 2_000
"""One with lookarounds or references backtracks, as far as its limit allows."""

_REPETITION = re.compile(r"(\d{1,5})\}")
_BACKTRACKS = re.compile(r"\(\?[^:]|\\[1-9gk]|[*+?}]\+")


class SchemaTooComplex(ValueError):
    """The schema costs too much to compile or to use."""


class BadSchema(ValueError):
    """The schema is invalid at ``path``, the keys and indexes that lead there."""

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class Subschema(NamedTuple):
    """A part of a schema: the path within its parent, and whether it holds for the same value or for its parts."""

    path: tuple[str, ...]
    schema: Any
    here: bool


class SchemaSize(NamedTuple):
    """``size`` is the number of subschemas with references replaced. A ``recursive`` schema counts once."""

    size: int
    recursive: bool


def subschemas(schema: dict[str, Any]) -> Iterator[Subschema]:
    """Yield the subschemas that hold for a value of ``schema`` or for its parts, without definitions."""
    for key, value in schema.items():
        if key in _HERE or key in _BELOW:
            yield from _parts_of(key, value, here=key in _HERE)


def _parts_of(key: str, value: Any, *, here: bool) -> Iterator[Subschema]:
    """Yield the subschemas of one keyword: of its list, of its names, or its value itself."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield Subschema((key, str(index)), item, here)
    elif key in _MAPS and isinstance(value, dict):
        for name, item in value.items():
            yield Subschema((key, name), item, here)
    else:
        yield Subschema((key,), value, here)


def all_schemas(root: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the objects among all subschemas, definitions included, with their paths.

    Raises ``SchemaTooComplex`` if there are more than ``MAX_NODES``, or if they are nested too deeply.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    count = 0
    while waiting:
        path, schema = waiting.pop()
        count += 1
        if count > MAX_NODES:
            raise SchemaTooComplex(f"The schema has more than {MAX_NODES} subschemas.")
        if len(path) > 2 * MAX_HEIGHT:
            raise SchemaTooComplex(f"The schema is nested more than {MAX_HEIGHT} levels deep.")
        if isinstance(schema, dict):
            yield path, schema
            waiting += [(path + part.path, part.schema) for part in subschemas(schema)]
            for key in _DEFINITIONS:
                if isinstance(schema.get(key), dict):
                    waiting += [((*path, key, name), item) for name, item in schema[key].items()]


def measured(root: Any) -> SchemaSize:
    """Return the size of a schema.

    Raises ``BadSchema`` for a reference that cannot be followed or that leads to itself, and ``SchemaTooComplex``.
    """
    for path, schema in all_schemas(root):
        _check_references(root, path, schema)
    walk = _Measure(root)
    size, _ = walk.visit(root, 0)
    done: set[int] = set()
    for schema in walk.visited:
        _follow_here(root, schema, done, set())
    return SchemaSize(size, walk.recursive)


def _check_references(root: Any, path: tuple[str, ...], schema: dict[str, Any]) -> None:
    for key in _REFUSED:
        if key in schema:
            raise BadSchema(f"'{key}' is not supported. Refer to '#/$defs/…' with '$ref' instead.", path)
    for key in ("$id", "id"):  # "id" is a keyword of draft 4, and an annotation otherwise
        if path and isinstance(schema.get(key), str):
            raise BadSchema(f"'{key}' is only supported at the top of the schema.", path)
    if "$ref" not in schema:
        return
    reference = schema["$ref"]
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise BadSchema("'$ref' can only point into the same schema, such as '#/$defs/name'.", path)
    if not isinstance(pointed(root, reference), (dict, bool)):
        raise BadSchema(f"'$ref' points to '{reference[:100]}', which does not exist in the schema.", path)


class _Measure:
    """Counts subschemas; each target of a reference is counted once and then remembered."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()
        self.recursive = False
        self.visited: list[dict[str, Any]] = []

    def visit(self, schema: Any, depth: int) -> tuple[int, int]:
        """Return the size and the height of a schema, which is ``depth`` levels deep."""
        if not isinstance(schema, dict):
            return 1, 0
        key = id(schema)
        if key in self._open:
            self.recursive = True
            return 1, 0
        if key not in self._known:
            self.visited.append(schema)
            self._open.add(key)
            self._known[key] = self._measure(schema, depth)
            self._open.remove(key)
        size, height = self._known[key]
        if size > MAX_SIZE:
            raise SchemaTooComplex("The schema is too complex: its references and unions expand too far.")
        if depth + height > MAX_HEIGHT:
            raise SchemaTooComplex(f"The schema is nested more than {MAX_HEIGHT} levels deep.")
        return size, height

    def _measure(self, schema: dict[str, Any], depth: int) -> tuple[int, int]:
        if depth > MAX_HEIGHT:
            raise SchemaTooComplex(f"The schema is nested more than {MAX_HEIGHT} levels deep.")
        size, height = own_cost(schema), 0
        for part in followed(self._root, schema):
            part_size, part_height = self.visit(part.schema, depth + 1)
            size += part_size
            height = max(height, part_height + 1)
        return size, height


def followed(root: Any, schema: dict[str, Any]) -> Iterator[Subschema]:
    """Yield the subschemas and the target of the reference."""
    if isinstance(schema.get("$ref"), str):
        yield Subschema(("$ref",), pointed(root, schema["$ref"]), here=True)
    yield from subschemas(schema)


def own_cost(schema: dict[str, Any]) -> int:
    """Return what a schema costs without its parts."""
    expressions = expressions_of(schema)
    choices = schema.get("enum")
    many = len(choices) // 20 if isinstance(choices, list) else 0
    return 1 + many + sum(_BACKTRACKING_COST if _BACKTRACKS.search(one) else _PATTERN_COST for one in expressions)


def compile_cost(schema: dict[str, Any]) -> int:
    """Return what it costs to compile a schema without its parts: 1, and more for each regular expression."""
    return 1 + sum(map(_expression_cost, expressions_of(schema)))


def _expression_cost(expression: str) -> int:
    """Return the cost of a regular expression, of which each repetition is a copy."""
    copies = 1
    for number in islice(_REPETITION.finditer(expression), 8):
        copies *= max(1, int(number[1]))
    return 20 + min(copies, 1000) // 4


def expressions_of(schema: dict[str, Any]) -> list[str]:
    """Return the regular expressions of a schema without its parts."""
    patterns = schema.get("patternProperties")
    expressions = [*patterns] if isinstance(patterns, dict) else []
    if isinstance(schema.get("pattern"), str):
        expressions.append(schema["pattern"])
    return expressions


def _follow_here(root: Any, schema: Any, done: set[int], opened: set[int]) -> None:
    """Raise ``BadSchema`` if a schema refers to itself for the same value: its validation would not end."""
    if not isinstance(schema, dict) or id(schema) in done:
        return
    if id(schema) in opened:
        raise BadSchema("A '$ref' of the schema leads back to itself.")
    opened.add(id(schema))
    for part in followed(root, schema):
        if part.here:
            _follow_here(root, part.schema, done, opened)
    opened.remove(id(schema))
    done.add(id(schema))


def clipped(text: str) -> str:
    """Return a message with at most ``MAX_MESSAGE`` characters."""
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"
