"""Reads types as TypeScript writes them, in which a model is told the parameters of tools, and makes values of them.

Comments are skipped. An unknown name of a type stands for any value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<word>-?[\w$.]+)"""
    r"""| (?P<mark>[{}()\[\]|?:;,=&]) | (?P<line>\n) | (?P<other>[^\S\n]+|.)""",
    re.VERBOSE | re.DOTALL,
)

_WORDS: dict[str, Any] = {
    "string": "text",
    "number": 1.5,
    "integer": 1,
    "boolean": True,
    "null": None,
    "any": "text",
    "unknown": "text",
    "object": {},
}
"""The value of each named type."""

MAX_DEPTH = 8
"""Nested values; an optional member or an item of an array beyond it is left out."""


@dataclass(frozen=True)
class Type:
    """A type. ``kind`` is ``literal``, ``name``, ``object``, ``array``, ``tuple`` or ``union``."""

    kind: str
    value: Any = None
    """The value of a literal, or the name of a type."""
    parts: tuple[Type, ...] = ()
    """The type of an array's items, and the parts of a tuple or a union."""
    members: dict[str, tuple[Type, bool]] = field(default_factory=dict)
    """The types of an object's members, and whether each is required."""


Choose = Callable[[str, Type], Any]
"""Returns the value of a member, by its name and type; None leaves the choice to the type."""


def read_type(text: str) -> Type:
    """Return the type at the start of ``text``."""
    return _Reader(text).union()


def make_value(kind: Type, choose: Choose, named: dict[str, Type], depth: int = 0) -> Any:
    """Return a value of a type. ``named`` holds the types with a name."""
    if kind.kind == "literal":
        return kind.value
    if kind.kind == "name":
        target = named.get(kind.value)
        return _WORDS.get(kind.value, "text") if target is None else make_value(target, choose, named, depth + 1)
    if kind.kind == "union":
        return make_value(kind.parts[0], choose, named, depth + 1)
    if kind.kind == "array":
        return [] if depth >= MAX_DEPTH else [make_value(kind.parts[0], choose, named, depth + 1)]
    if kind.kind == "tuple":
        return [make_value(part, choose, named, depth + 1) for part in kind.parts]
    value: dict[str, Any] = {}
    for name, (member, required) in kind.members.items():
        chosen = choose(name, member)
        if chosen is not None:
            value[name] = chosen
        elif required:
            value[name] = make_value(member, choose, named, depth + 1)
    return value


class _Reader:
    """A recursive reader of types. Line breaks separate the members of an object, as ``;`` does."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens, "")

    def union(self) -> Type:
        self._skip("|")
        parts = [self._postfixed()]
        while self._skip("|"):
            parts.append(self._postfixed())
        return parts[0] if len(parts) == 1 else Type("union", parts=tuple(parts))

    def _postfixed(self) -> Type:
        kind = self._single()
        while self._next == "[":
            self._take()
            self._expect("]")
            kind = Type("array", parts=(kind,))
        return kind

    def _single(self) -> Type:
        self._skip_lines()
        token = self._take()
        if token == "(":
            inner = self.union()
            self._expect(")")
            return inner
        if token == "{":
            return self._object()
        if token == "[":
            parts = []
            while self._next not in ("]", ""):
                parts.append(self.union())
                self._skip(",")
            self._expect("]")
            return Type("tuple", parts=tuple(parts))
        try:
            return Type("literal", json.loads(token))
        except ValueError:
            return Type("name", token)

    def _object(self) -> Type:
        members: dict[str, tuple[Type, bool]] = {}
        self._skip_lines()
        while self._next not in ("}", ""):
            name = self._take()
            if name == "[":  # [key: string]: T
                while self._take() not in ("]", ""):
                    pass
                name = ""
            optional = self._skip("?")
            self._expect(":")
            kind = self.union()
            if name:
                members[json.loads(name) if name.startswith('"') else name] = kind, not optional
            while self._next in (";", ",", "\n"):
                self._take()
        self._take()
        return Type("object", members=members)

    def _take(self) -> str:
        token = self._next
        self._next = next(self._tokens, "")
        return token

    def _skip(self, token: str) -> bool:
        if self._next != token and token == "|":
            return False
        if self._next == token:
            self._take()
            return True
        return False

    def _skip_lines(self) -> None:
        while self._next == "\n":
            self._take()

    def _expect(self, token: str) -> None:
        self._skip_lines()
        self._skip(token)


def _tokens(text: str) -> Iterator[str]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup in ("string", "word", "mark", "line"):
            yield found.group().strip(" ") if found.lastgroup != "line" else "\n"
