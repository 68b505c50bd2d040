"""Bound the work of a validation."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.tools.validation_cost import MAX_DEPTH, validation_cost, value_size


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "size"),
    [(1, (1, 1)), ([], (1, 1)), ({"a": [1, "b" * 256]}, (5, 3)), (_nested(1000), (201, MAX_DEPTH + 1))],
)
def test_sizes_of_values(value: Any, size: tuple[int, int]) -> None:
    assert value_size(value) == size


COSTS: list[tuple[Any, Any, int]] = [
    (True, 1, 1),
    ({}, [1, 2], 1),
    ({"items": {}}, [1, "b"], 3),
    ({"items": {}}, {"a": 1}, 1),
    ({"pattern": "a"}, "x" * 1_000, 4 * 51),
    ({"properties": {"a": {}, "b": {}}}, {"a": 1, "c": 2}, 2),
    ({"properties": {"a": {}}}, [1], 1),
    ({"propertyNames": {}}, {"a": 1, "b": 2}, 3),
    ({"propertyNames": {}}, 1, 1),
    ({"additionalProperties": {}}, {"a": 1, "b": 2}, 3),
    ({"additionalProperties": {}}, 1, 1),
    ({"patternProperties": {"a": {}}}, {"a": 1}, 52),
    ({"prefixItems": [{}, {}, {}]}, [1, 2], 3),
    ({"prefixItems": [{}]}, 5, 1),
    ({"not": {"allOf": [{}, {}]}}, 1, 4),
    ({"$ref": "#/$defs/a", "$defs": {"a": {}}}, 1, 2),
    ({"unevaluatedItems": False, "allOf": [{}]}, [1], 6),
]


@pytest.mark.parametrize(("schema", "value", "cost"), COSTS)
def test_costs(schema: Any, value: Any, cost: int) -> None:
    assert validation_cost(schema, value, 1) == cost


def test_the_branches_of_a_union_cost_more_if_their_errors_are_collected() -> None:
    schema: Any = {"anyOf": [{}, {"oneOf": [{}, {}]}]}
    assert validation_cost(schema, 1, 1) == 5
    assert validation_cost(schema, 1, 2) == 1 + 2 * (1 + 1 + 2 * 2)


def test_exponential_work_is_found_in_linear_time() -> None:
    branch = {"properties": {"a": {"$ref": "#"}}}
    cost = validation_cost({"oneOf": [branch, {**branch, "required": ["b"]}]}, _nested(100), 1)
    assert cost is not None
    assert cost > 2**100


def test_the_search_itself_is_bounded() -> None:
    assert validation_cost({"items": {}}, list(range(100_000)), 1) is None
