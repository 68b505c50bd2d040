"""The inputs of a Replicate model, read from its OpenAPI schema.

Cog generates these schemas. It writes enums as ``allOf: [{$ref}]`` (or ``$ref`` alone) and marks URLs with
``format: uri``. The schema is the authority on a model's inputs: Replicate silently drops inputs that are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from openai_dify_proxy.errors import InvalidRequest

MAX_FLOAT = 1.7976931348623157e308
"""The largest double. Larger integers cannot be converted to float."""

INT64 = range(-(2**63), 2**63)
"""The range of integers that Replicate accepts."""


class ModelInput(Struct, frozen=True):
    """One input. ``kind`` is string, integer, number, boolean, array or object.

    ``uri`` is set for a URL and for a list of URLs. ``above`` and ``below`` are the exclusive bounds of a number;
    those of an integer are converted to ``minimum`` and ``maximum``. ``shortest`` and ``longest`` bound the length of
    a string or list, and ``items`` describes the items of a list.
    """

    name: str
    kind: str
    uri: bool = False
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[Any, ...] = ()
    default: Any = None
    required: bool = False
    description: str = ""
    above: float | None = None
    below: float | None = None
    multiple_of: float | None = None
    shortest: int = 0
    longest: int | None = None
    items: ModelInput | None = None

    @property
    def takes(self) -> str:
        """A description of the accepted values, for messages."""
        if self.options:
            return "one of " + ", ".join(map(str, self.options))
        words = {"string": "text", "integer": "an integer", "number": "a number", "boolean": "true or false"}
        text = "a URL" if self.uri and self.kind == "string" else words.get(self.kind, f"an {self.kind}")
        return " ".join([text, *self._describe_range()])

    def _describe_range(self) -> Iterator[str]:
        low, high = self.minimum, self.maximum
        if low is not None:
            yield f"from {_format_bound(low)} " + ("up" if high is None else f"to {_format_bound(high)}")
        elif high is not None:
            yield f"up to {_format_bound(high)}"
        if self.above is not None:
            yield f"above {_format_bound(self.above)}"
        if self.below is not None:
            yield f"below {_format_bound(self.below)}"
        if self.multiple_of is not None:
            yield f"in steps of {_format_bound(self.multiple_of)}"
        unit = "items" if self.kind == "array" else "characters"
        if self.shortest:
            yield f"of at least {self.shortest} {unit}"
        if self.longest is not None:
            yield f"of at most {self.longest} {unit}"
        if self.items is not None:
            yield f"whose items are {self.items.takes}"

    @property
    def lowest(self) -> int | None:
        """The smallest integer within the bounds."""
        bounds = [None if self.minimum is None else math.ceil(self.minimum), _after(self.above)]
        return max((bound for bound in bounds if bound is not None), default=None)

    @property
    def highest(self) -> int | None:
        """The largest integer within the bounds."""
        bounds = [None if self.maximum is None else math.floor(self.maximum), _before(self.below)]
        return min((bound for bound in bounds if bound is not None), default=None)

    def accept(self, value: Any, param: str) -> Any:
        """Return ``value`` in the spelling and type of the model. Raises InvalidRequest with ``param``."""
        if self.options:
            for option in self.options:
                if option == value or str(option).lower() == str(value).lower():
                    return option
        elif self.fits(value):
            return int(value) if self.kind == "integer" else value
        problem, takes = ("is too large", self._limits) if self._exceeds(value) else ("is invalid", self.takes)
        raise InvalidRequest(f"{param} {problem}. This model's '{self.name}' must be {takes}.", param=param)

    @property
    def _limits(self) -> str:
        """The accepted values, with the limit of 64 bits where the schema has none."""
        return self.takes if self.maximum is not None else replace(self, maximum=INT64[-1]).takes

    def _exceeds(self, value: Any) -> bool:
        if self.options or not _is_number(value):
            return False
        if self.maximum is None:
            return self.kind == "integer" and value > INT64[-1]
        return self.kind in ("integer", "number") and value > self.maximum

    def fits(self, value: Any) -> bool:
        """Return whether an input without a list of options accepts ``value``."""
        if self.kind in ("integer", "number"):
            return _is_number(value) and self._fits_number(value)
        if self.kind in ("string", "array"):
            if not isinstance(value, str if self.kind == "string" else list) or len(value) < self.shortest:
                return False
            if self.longest is not None and len(value) > self.longest:
                return False
            return self.items is None or all(self.items.holds(item) for item in value)
        types = {"boolean": bool, "object": dict}
        return isinstance(value, types.get(self.kind, object))

    def holds(self, item: Any) -> bool:
        """Return whether a list may contain ``item``. Options are compared exactly."""
        return item in self.options if self.options else self.fits(item)

    def _fits_number(self, value: float) -> bool:
        if self.kind == "integer":
            if not INT64[0] <= value <= INT64[-1] or value != int(value):
                return False
        elif not abs(value) <= MAX_FLOAT:
            return False
        if self.multiple_of is not None and not _is_multiple(value, self.multiple_of):
            return False
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


class ModelInputs(Struct, frozen=True):
    """The inputs of a model by name, in the order of its schema."""

    fields: Mapping[str, ModelInput]

    def first(self, names: Iterable[str]) -> ModelInput | None:
        """Return the input with the first of ``names`` that the model has."""
        return next((self.fields[name] for name in names if name in self.fields), None)


def read_model_inputs(schema: Mapping[str, Any]) -> ModelInputs:
    """Read ``components.schemas.Input`` of a version's ``openapi_schema``; empty if there is none."""
    schemas = _mapping(_mapping(schema.get("components")).get("schemas"))
    described = _mapping(schemas.get("Input"))
    required = _list(described.get("required"))
    properties = _mapping(described.get("properties"))
    ordered = sorted(properties.items(), key=lambda item: _order(item[1]))
    return ModelInputs(
        {name: _read(name, _resolve(_mapping(body), schemas), schemas, name in required) for name, body in ordered}
    )


def _order(body: Any) -> float:
    order = _mapping(body).get("x-order")
    return order if isinstance(order, int) else float("inf")


_COMBINED = ("allOf", "anyOf", "oneOf")


def _resolve(body: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the property merged with the schemas that it refers to. Its own keys take precedence."""
    merged: dict[str, Any] = {}
    for part in (body, *(part for key in _COMBINED for part in _list(body.get(key)))):
        reference = _mapping(part).get("$ref")
        if isinstance(reference, str):
            merged |= _mapping(schemas.get(reference.rpartition("/")[2]))
        elif part is not body and _mapping(part).get("type") != "null":
            merged |= _mapping(part)
    return merged | {key: value for key, value in body.items() if key not in (*_COMBINED, "$ref")}


def _read(name: str, body: Mapping[str, Any], schemas: Mapping[str, Any], required: bool) -> ModelInput:
    kind = _kind(body.get("type", "string"))
    items = _resolve(_mapping(body.get("items")), schemas)
    low, above = _bounds(body, "minimum", "exclusiveMinimum")
    high, below = _bounds(body, "maximum", "exclusiveMaximum")
    field = ModelInput(
        name,
        kind,
        body.get("format") == "uri" or items.get("format") == "uri",
        low,
        high,
        tuple(_list(body.get("enum"))),
        body.get("default"),
        required,
        str(body.get("description") or ""),
        above,
        below,
        _positive(body.get("multipleOf")),
        int(_positive(body.get("minItems" if kind == "array" else "minLength")) or 0),
        _length(body.get("maxItems" if kind == "array" else "maxLength")),
        _read(name, items, schemas, False) if kind == "array" and ("type" in items or "enum" in items) else None,
    )
    if kind != "integer":
        return field
    return replace(field, minimum=field.lowest, maximum=field.highest, above=None, below=None)


def _bounds(body: Mapping[str, Any], inclusive: str, exclusive: str) -> tuple[float | None, float | None]:
    """Return the inclusive and the exclusive bound.

    In OpenAPI 3.0 the exclusive bound is a boolean, in 3.1 a number.
    """
    bound = _bound(body.get(inclusive))
    return (None, bound) if body.get(exclusive) is True else (bound, _bound(body.get(exclusive)))


def _kind(value: Any) -> str:
    """Return the type; OpenAPI 3.1 may list several, ``null`` among them."""
    named = [kind for kind in _list(value) if kind != "null"]
    return str(named[0] if named else value)


def _bound(value: Any) -> float | None:
    return value if _is_number(value) and math.isfinite(value) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: Any) -> float | None:
    bound = _bound(value)
    return bound if bound is not None and bound > 0 else None


def _length(value: Any) -> int | None:
    bound = _bound(value)
    return int(bound) if bound is not None and bound >= 0 else None


def _after(bound: float | None) -> int | None:
    return None if bound is None else math.floor(bound) + 1


def _before(bound: float | None) -> int | None:
    return None if bound is None else math.ceil(bound) - 1


def _is_multiple(value: float, step: float) -> bool:
    """Return whether ``value`` is a multiple, with a tolerance for fractions that are not exact in binary (0.1)."""
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    parts = value / step
    return abs(parts - round(parts)) < 1e-9 * max(1, abs(parts))


def _format_bound(number: float) -> str:
    """Format a bound with all its digits, which ``:g`` would round."""
    return str(int(number)) if number == int(number) else f"{number:g}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def describe(inputs: ModelInputs) -> str:
    """List the names of all inputs, for messages."""
    return ", ".join(inputs.fields) or "none"
