"""Bounds the work of one validation before it starts, since nothing can interrupt it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai_dify_proxy.tools.schema_walk import followed, own_cost

MAX_DEPTH = 200
"""Nesting of a value."""

_MAX_STEPS = 30_000
"""Pairs of a subschema and a part of the value that are looked at."""


def value_size(value: Any) -> tuple[int, int]:
    """Return the number of a value's parts, and its nesting, which is counted up to ``MAX_DEPTH`` + 1."""
    count, depth = 0, 0
    level = [value]
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH:
            break
        level = [part for item in level for part in _parts(item)]
    return count, depth


def validation_cost(root: Any, value: Any, branch_weight: int) -> int | None:
    """Return an upper bound of the subschemas that a validation of ``value`` visits, or None if it is out of reach.

    ``branch_weight`` multiplies the work below ``anyOf`` and ``oneOf``: 1 to know whether the value is valid, 2 to
    collect the errors of the branches, which validates each of them again.
    """
    walk = _Cost(root, branch_weight)
    try:
        return walk.of(root, value)
    except _OutOfReach:
        return None


class _OutOfReach(Exception):
    pass


class _Cost:
    def __init__(self, root: Any, branch_weight: int) -> None:
        self._root = root
        self._weight = branch_weight
        self._known: dict[tuple[int, int], int] = {}
        self._steps = 0

    def of(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        key = id(schema), id(value)  # both stay alive, so that ids are unique; equal scalars may share one
        if key not in self._known:
            self._known[key] = self._sum(schema, value)
        return self._known[key]

    def _sum(self, schema: dict[str, Any], value: Any) -> int:
        cost = own_cost(schema)
        for part in followed(self._root, schema):
            key = part.path[0]
            if part.here:
                weight = self._weight if key in ("anyOf", "oneOf") else 1
                cost += weight * self._step(part.schema, value)
            else:
                cost += sum(self._step(part.schema, item) for item in _meant(part.path, value))
        return 2 * cost if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else cost

    def _step(self, schema: Any, value: Any) -> int:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise _OutOfReach
        return self.of(schema, value)


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


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
