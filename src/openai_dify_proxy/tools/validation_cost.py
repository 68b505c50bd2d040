"""Bounds the work of one validation before it starts, since nothing can interrupt it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from openai_dify_proxy.tools.schema_walk import followed, own_cost

MAX_DEPTH = 200
"""Nesting of a value."""

_MAX_STEPS = 30_000
"""Pairs of a subschema and a part of the value that are looked at."""


def value_size(value: Any) -> tuple[int, int]:
    """Return the number of a value's parts, and its nesting, which is counted up to ``MAX_DEPTH`` + 1.

    A long string counts as several parts.
    """
    count, depth = 0, 0
    level = [value]
    while level:
        depth += 1
        count += sum(map(_weight, level))
        if depth > MAX_DEPTH:
            break
        level = [part for item in level for part in _parts(item)]
    return count, depth


def validation_cost(root: Any, value: Any, branch_weight: int) -> int | None:
    """Return an upper bound of the subschemas that a validation of ``value`` visits, or None if it is out of reach.

    ``branch_weight`` multiplies the work below ``anyOf`` and ``oneOf``: 1 to know whether the value is valid, 2 to
    collect the errors of the branches, which validates each of them again.
    """
    known: dict[tuple[int, int], int] = {}  # by ids: all objects stay alive, and equal scalars may share one
    waiting: list[tuple[Any, Any, list[_Part] | None]] = [(root, value, None)]
    steps = 0
    while waiting:
        schema, item, parts = waiting.pop()
        key = id(schema), id(item)
        if parts is not None:
            known[key] = _sum(schema, item, parts, known)
        elif key not in known:
            parts = list(_visited(root, schema, item, branch_weight)) if isinstance(schema, dict) else []
            steps += 1 + len(parts)
            if steps > _MAX_STEPS:
                return None
            waiting.append((schema, item, parts))
            waiting += [(part.schema, part.value, None) for part in parts]
    return known[id(root), id(value)]


_STRING_PART = 256
"""Characters that a regular expression reads in the time that it takes to visit a subschema."""


class _Part(NamedTuple):
    weight: int
    schema: Any
    value: Any


def _sum(schema: Any, value: Any, parts: list[_Part], known: dict[tuple[int, int], int]) -> int:
    if not isinstance(schema, dict):
        return 1
    cost = _weight(value) * own_cost(schema) + sum(
        part.weight * known[id(part.schema), id(part.value)] for part in parts
    )
    return 2 * cost if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else cost


def _visited(root: Any, schema: dict[str, Any], value: Any, branch_weight: int) -> Iterator[_Part]:
    """Yield the subschemas with the values that they hold for."""
    for part in followed(root, schema):
        if part.here:
            yield _Part(branch_weight if part.path[0] in ("anyOf", "oneOf") else 1, part.schema, value)
        else:
            for item in islice(_meant(part.path, value), _MAX_STEPS + 1):
                yield _Part(1, part.schema, item)


def _meant(path: tuple[str, ...], value: Any) -> Iterator[Any]:
    """Yield the parts of a value that a subschema with this path may hold for."""
    key = path[0]
    if key == "properties":
        if isinstance(value, dict) and path[1] in value:
            yield value[path[1]]
    elif key == "propertyNames":
        yield from value if isinstance(value, dict) else ()
    elif key in ("patternProperties", "additionalProperties", "unevaluatedProperties"):
        yield from value.values() if isinstance(value, dict) else ()
    elif isinstance(value, list):
        if len(path) == 1:
            yield from value
        else:
            yield from value[int(path[1]) : int(path[1]) + 1]


def _weight(value: Any) -> int:
    return 1 + len(value) // _STRING_PART if isinstance(value, str) else 1


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
