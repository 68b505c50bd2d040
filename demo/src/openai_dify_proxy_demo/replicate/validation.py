"""Validation of prediction requests, with Replicate's error texts."""

from __future__ import annotations

import json
import re
from typing import Any

from openai_dify_proxy_demo.replicate.errors import InvalidField, invalid_input
from openai_dify_proxy_demo.replicate.models import DemoModel
from openai_dify_proxy_demo.replicate.schemas import Param

COMMON_KEYS = frozenset({"input", "webhook", "webhook_events_filter", "webhook_completed", "stream"})

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "picture": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "pictures": list,
}
_JSON_NAMES = {"picture": "string", "pictures": "array"}


def validate_body(body: Any, *, versioned: bool) -> dict[str, Any]:
    """Return the body. Raise ProblemError, which lists every fault, for unknown keys or wrong types."""
    if not isinstance(body, dict):
        raise invalid_input([_wrong_type("", "object", body)])
    allowed = COMMON_KEYS | {"version"} if versioned else COMMON_KEYS
    required = ("version", "input") if versioned else ("input",)
    faults = [InvalidField("required", "", f"{key} is required") for key in required if key not in body]
    faults += [
        InvalidField("additional_property_not_allowed", "", f"Additional property {key} is not allowed")
        for key in body
        if key not in allowed
    ]
    if not isinstance(body.get("input", {}), dict):
        faults.append(_wrong_type("input", "object", body["input"]))
    if not isinstance(body.get("version", ""), str):
        faults.append(_wrong_type("version", "string", body["version"]))
    if faults:
        raise invalid_input(faults)
    return body


def validate_inputs(model: DemoModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of the model. Drop unknown ones silently; raise ProblemError for invalid ones."""
    faults = [
        InvalidField("required", "input", f"{param.name} is required")
        for param in model.params
        if param.required and param.name not in inputs
    ]
    known = {param.name: inputs[param.name] for param in model.params if param.name in inputs}
    for param in model.params:
        if param.name in known:
            faults += _faults(param, known[param.name])
    if faults:
        raise invalid_input(faults)
    return known


def _faults(param: Param, value: Any) -> list[InvalidField]:
    if value is None and param.nullable:
        return []
    field = f"input.{param.name}"
    if not _is_a(param.kind, value):
        return [_wrong_type(field, _JSON_NAMES.get(param.kind, param.kind), value)]
    if param.choices and value not in param.choices:
        allowed = ", ".join(json.dumps(choice) for choice in param.choices)
        return [InvalidField("enum", field, f"{param.name} must be one of the following: {allowed}")]
    if param.kind in ("picture", "pictures"):
        return _not_uris({field: value} if param.kind == "picture" else _entries(field, value))
    return _out_of_range(param, field, value)


def _out_of_range(param: Param, field: str, value: float) -> list[InvalidField]:
    if param.minimum is not None and value < param.minimum:
        return [InvalidField("number_gte", field, f"Must be greater than or equal to {param.minimum:g}")]
    if param.maximum is not None and value > param.maximum:
        return [InvalidField("number_lte", field, f"Must be less than or equal to {param.maximum:.15g}")]
    return []


def _entries(field: str, values: list[Any]) -> dict[str, Any]:
    return {f"{field}.{index}": value for index, value in enumerate(values)}


def _not_uris(values: dict[str, Any]) -> list[InvalidField]:
    return [
        InvalidField("format", field, "Does not match format 'uri'")
        for field, value in values.items()
        if not _is_uri(value)
    ]


def _is_a(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _is_uri(value: object) -> bool:
    return isinstance(value, str) and re.match(r"(https?://[^/\s]|data:[^,]*,)", value) is not None


def _wrong_type(field: str, expected: str, value: object) -> InvalidField:
    return InvalidField("invalid_type", field, f"Invalid type. Expected: {expected}, given: {_json_name(value)}")


def _json_name(value: object) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")
