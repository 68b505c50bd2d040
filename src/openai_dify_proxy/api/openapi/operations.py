"""The parts from which the descriptions of routes are made."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Schema = dict[str, Any]

JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
BINARY: Schema = {"type": "string", "format": "binary"}
TEXT: Schema = {"type": "string"}

Content = dict[str, Any]
"""A struct, a union of structs, or a schema, for each media type. For EVENTS it describes the JSON of each frame."""

Key = Literal["client", "spender", "optional", "none"]
"""Which keys a route accepts: every kind, client keys only, every kind or none, or no key at all."""


class Parameter(Struct, frozen=True):
    """A parameter in the query, the path or a header."""

    name: str
    place: Literal["query", "path", "header"]
    description: str
    schema: Schema | None = None
    """Any text if it is None."""


class AnswerDescription(Struct, frozen=True, kw_only=True):
    """A successful answer."""

    content: Content = {}
    status: int = 200
    description: str = "Success."
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """The description of a route. ``docs`` is its page below ``docs/``, ``errors`` has the status of its errors.

    Every route also has the errors of ``document.COMMON_ERRORS``, and one that accepts keys those of wrong keys.
    """

    summary: str
    tag: str
    docs: str
    answers: tuple[AnswerDescription, ...]
    body: Content = {}
    body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    key: Key = "client"
