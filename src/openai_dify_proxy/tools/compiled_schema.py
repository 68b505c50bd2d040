"""Schemas as jsonschema-rs compiles them, and its errors as sentences; ``schemas`` bounds what both cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import jsonschema_rs
from msgspec import json

from openai_dify_proxy.tools.schema_walk import BadSchema, all_schemas, clipped

_VALUE = "this value"
"""The name of a value in messages, which never contain the value itself: it may be private."""

_MAX_ERRORS = 5
_REPETITIONS = re.compile(r"\{\d{1,9}(?:,\d{0,9})?\}")
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=2_500, size_limit=1 << 20)


class CompiledSchema:
    """A compiled schema. Raises ``BadSchema`` if ``root``, the decoded schema, is invalid."""

    __slots__ = ("_validator", "accepts")

    def __init__(self, root: dict[str, Any]) -> None:
        self._validator = _compiled(root)
        self.accepts = self._validator.is_valid
        """Return whether a decoded JSON value matches the schema."""

    def errors(self, value: Any) -> list[str]:
        """Return the first errors of a value, at most five, each with its place."""
        return [_told(error) for error in islice(self._validator.iter_errors(value), _MAX_ERRORS)]


def _compiled(root: dict[str, Any]) -> jsonschema_rs.Validator:
    dialect = root.get("$schema")
    if isinstance(dialect, str) and "://json-schema.org/" not in dialect:
        root = {key: value for key, value in root.items() if key != "$schema"}  # an unknown dialect
    try:
        return _validator(root)
    except jsonschema_rs.ValidationError as error:
        if error.instance_path[-1:] == ["pattern"] and (lenient := _without_patterns(root)) is not None:
            return lenient
        # The schema is the client's own, so that its value may be shown.
        message = error.message.replace(_VALUE, clipped(json.encode(error.instance).decode()), 1)
        raise BadSchema(f"{clipped(message)}.", tuple(map(str, error.instance_path))) from error


def _validator(root: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        root, mask=_VALUE, validate_formats=False, retriever=_refuse, pattern_options=_PATTERNS
    )


def _without_patterns(root: dict[str, Any]) -> jsonschema_rs.Validator | None:
    """Return the validator that ignores ``pattern``, or None if a regular expression is more than too large.

    ``[\\w ]{1,255}`` is valid and compiles to more than a megabyte. Without its repetitions it shows that it is valid.
    """
    copy: dict[str, Any] = json.decode(json.encode(root))
    schemas = [schema for _, schema in all_schemas(copy) if isinstance(schema.get("pattern"), str)]
    for schema in schemas:
        schema["pattern"] = _REPETITIONS.sub("*", schema["pattern"])
    try:
        _validator(copy)
        for schema in schemas:
            del schema["pattern"]
        return _validator(copy)
    except jsonschema_rs.ValidationError:
        return None


def _refuse(uri: str) -> Any:
    raise ValueError("other documents are not fetched")


def _told(error: jsonschema_rs.ValidationError) -> str:
    """Return the place and the message of an error, with the closest errors of a union's branches."""
    place = _place(error.instance_path)
    reason = clipped("; or ".join(_reasons(error)))
    return f"{place}: {reason}" if place else reason


def _reasons(error: jsonschema_rs.ValidationError) -> Iterator[str]:
    kind = error.kind
    if not isinstance(kind, (jsonschema_rs.ValidationErrorKind.AnyOf, jsonschema_rs.ValidationErrorKind.OneOfNotValid)):
        yield error.message
        return
    branches = [branch[0] for branch in kind.context if branch]
    # A branch for another type says nothing about the value; the place of the deepest error is the likely fault.
    meant = [branch for branch in branches if not _other_type(branch, error)] or branches
    deep = len(error.instance_path)
    for branch in islice(meant, 3):
        inner = _place(branch.instance_path[deep:])
        yield f"{inner}: {branch.message}" if inner else branch.message


def _other_type(branch: jsonschema_rs.ValidationError, error: jsonschema_rs.ValidationError) -> bool:
    is_type = isinstance(branch.kind, jsonschema_rs.ValidationErrorKind.Type)
    return is_type and len(branch.instance_path) == len(error.instance_path)


def _place(path: list[str | int]) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return clipped("".join(parts).removeprefix("."))
