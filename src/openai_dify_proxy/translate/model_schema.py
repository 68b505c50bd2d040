"""What a Replicate model takes, read from its own OpenAPI schema.

Cog, which writes these schemas, hides enums behind ``allOf: [{$ref}]`` (or ``$ref`` alone) and marks URLs by
``format: uri``. A model's schema is the authority on its parameters: Replicate silently drops inputs that are not in
it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest

_BLACK_REPAINTS = re.compile(
    r"black\s+(?:\w+\s+){0,3}?(?:(?:are|is|will be|get)\s+)?(?:in-?painted|repainted|changed|edited|filled|replaced)",
    re.IGNORECASE,
)


class ModelInput(Struct, frozen=True):
    """One input; ``kind`` is string, integer, number, boolean, array or object. ``uri`` also tells a list of them."""

    name: str
    kind: str
    uri: bool = False
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[Any, ...] = ()
    default: Any = None
    required: bool = False
    description: str = ""

    @property
    def takes(self) -> str:
        """What it takes, in words for a person."""
        if self.options:
            return "one of " + ", ".join(map(str, self.options))
        words = {"string": "a text", "integer": "an integer", "number": "a number", "boolean": "true or false"}
        text = "a URL" if self.uri and self.kind == "string" else words.get(self.kind, f"an {self.kind}")
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{text} from {_shown(low)} to {_shown(high)}"
        if low is not None:
            return f"{text} from {_shown(low)} up"
        return f"{text} up to {_shown(high)}" if high is not None else text

    @property
    def black_repaints(self) -> bool:
        """For a mask: whether its black parts are painted anew, and not its white ones."""
        return bool(_BLACK_REPAINTS.search(self.description))

    def accept(self, value: Any, param: str) -> Any:
        """``value`` as the model takes it. Raises InvalidRequest with ``param``."""
        if self.options:
            for option in self.options:
                if option == value or str(option).lower() == str(value).lower():
                    return option
        elif self._fits(value):
            return int(value) if self.kind == "integer" else value
        raise InvalidRequest(f"{param}: this model's '{self.name}' must be {self.takes}.", param=param)

    def _fits(self, value: Any) -> bool:
        if self.kind in ("integer", "number"):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return False
            if isinstance(value, float) and not (
                value.is_integer() if self.kind == "integer" else math.isfinite(value)
            ):
                return False
            return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)
        types = {"string": str, "boolean": bool, "array": list, "object": dict}
        return isinstance(value, types.get(self.kind, object))


class ModelInputs(Struct, frozen=True):
    """All inputs of a model by name, in the model's own order."""

    fields: Mapping[str, ModelInput]

    def first(self, names: Iterable[str]) -> ModelInput | None:
        """The input that has the first of ``names`` that any has."""
        return next((self.fields[name] for name in names if name in self.fields), None)


def read_model_inputs(schema: Mapping[str, Any]) -> ModelInputs:
    """``components.schemas.Input`` of a version's ``openapi_schema``; empty if there is none."""
    schemas = _mapping(_mapping(schema.get("components")).get("schemas"))
    described = _mapping(schemas.get("Input"))
    required = _list(described.get("required"))
    properties = _mapping(described.get("properties"))
    ordered = sorted(properties.items(), key=lambda item: _order(item[1]))
    return ModelInputs(
        {name: _read(name, _resolve(_mapping(body), schemas), name in required) for name, body in ordered}
    )


def _order(body: Any) -> float:
    order = _mapping(body).get("x-order")
    return order if isinstance(order, int) else float("inf")


_COMBINED = ("allOf", "anyOf", "oneOf")


def _resolve(body: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The property with what its references say; what stands beside a reference wins."""
    merged: dict[str, Any] = {}
    for part in (body, *(part for key in _COMBINED for part in _list(body.get(key)))):
        reference = _mapping(part).get("$ref")
        if isinstance(reference, str):
            merged |= _mapping(schemas.get(reference.rpartition("/")[2]))
        elif part is not body and _mapping(part).get("type") != "null":
            merged |= _mapping(part)
    return merged | {key: value for key, value in body.items() if key not in (*_COMBINED, "$ref")}


def _read(name: str, body: Mapping[str, Any], required: bool) -> ModelInput:
    items = _mapping(body.get("items"))
    return ModelInput(
        name,
        _kind(body.get("type", "string")),
        body.get("format") == "uri" or items.get("format") == "uri",
        _bound(body.get("minimum")),
        _bound(body.get("maximum")),
        tuple(_list(body.get("enum"))),
        body.get("default"),
        required,
        str(body.get("description") or ""),
    )


def _kind(value: Any) -> str:
    """OpenAPI 3.1 lists types, null among them."""
    named = [kind for kind in _list(value) if kind != "null"]
    return str(named[0] if named else value)


def _bound(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _shown(number: float) -> str:
    """With all its digits: the largest seeds have ten."""
    return str(int(number)) if number == int(number) else f"{number:g}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def describe(inputs: ModelInputs) -> str:
    """The names of all inputs, for messages."""
    return ", ".join(inputs.fields) or "nothing that is known"
