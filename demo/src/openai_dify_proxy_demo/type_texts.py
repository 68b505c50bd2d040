"""Reads types as TypeScript writes them, in which instructions describe the arguments of tools and answers in JSON.

Comments are skipped. The time to read a type is linear in its length, and its depth is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_NESTING = 60
"""The maximum depth of a type."""

WORDS: dict[str, Any] = {
    "string": "text",
    "number": 1.5,
    "integer": 1,
    "boolean": True,
    "any": "text",
    "unknown": "text",
    "never": None,
    "object": {},
}
"""The types with a name of their own, and a value of each."""

_TOKEN = re.compile(
    r"""[^\S\n]*+(?://[^\n]*+)?+"""
    r"""(?P<token>\n | "(?:[^"\\\n]|\\.)*+" | -?\d[\d.]*+(?:[eE][+-]?\d++)?"""
    r""" | \.\.\. | [\w$]++ | [{}()\[\]|?:;,&] | \Z)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Type:
    """A type, with the fields that its kind needs."""

    kind: Literal["literal", "name", "object", "array", "tuple", "union"]
    value: Any = None
    """The value of a literal, or the name of a type."""
    parts: tuple[Type, ...] = ()
    """The type of an array's items, or the parts of a tuple or a union."""
    members: Mapping[str, tuple[Type, bool]] = field(default_factory=dict)
    """The types of an object's members, and whether each is required."""

    @property
    def nullable(self) -> bool:
        """Whether null is one of the choices."""
        return self.kind == "union" and any(part.kind == "literal" and part.value is None for part in self.parts)


class TypeSyntaxError(ValueError):
    """Raised for a text that is no type. `at` is the position of the first token that does not fit."""

    def __init__(self, at: int) -> None:
        super().__init__(f"no type at position {at}")
        self.at = at


def read_type(text: str, at: int = 0) -> tuple[Type, int]:
    """Return the type at a position of `text`, and the position behind it. Raise TypeSyntaxError if there is none."""
    reader = _Reader(text, at)
    return reader.union(), reader.end


class _Reader:
    """A recursive reader. Line breaks separate the members of an object, as `;` does."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._depth = 0
        self.end = at
        """The position behind the last token that was taken."""
        self._next = ""
        self._next_end = at
        self._look()

    def union(self) -> Type:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise TypeSyntaxError(self.end)
        parts = [self._intersection()]
        while self._next == "|":
            self._take()
            parts.append(self._intersection())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Type("union", parts=tuple(parts))

    def _intersection(self) -> Type:
        """Read types joined by `&`. Their members are merged; without members the first type counts."""
        kinds = [self._postfixed()]
        while self._next == "&":
            self._take()
            kinds.append(self._postfixed())
        members = {name: member for kind in kinds for name, member in kind.members.items()}
        return Type("object", members=members) if members else kinds[0]

    def _postfixed(self) -> Type:
        kind = self._single()
        while self._next == "[":
            self._take()
            self._expect("]")
            kind = Type("array", parts=(kind,))
        return kind

    def _single(self) -> Type:
        match first := self._take():
            case "(":
                inner = self.union()
                self._expect(")")
                return inner
            case "{":
                return self._object()
            case "[":
                return self._tuple()
            case "null" | "true" | "false":
                return Type("literal", json.loads(first))
            case _:
                return self._leaf(first)

    def _leaf(self, first: str) -> Type:
        if first.startswith('"') or first.lstrip("-")[:1].isdecimal():
            return Type("literal", self._json(first))
        return Type("name", self._word(first))

    def _tuple(self) -> Type:
        parts = []
        while self._next != "]":
            if self._next == "...":
                self._take()
                self.union()
            else:
                parts.append(self.union())
            if self._next != "]":
                self._expect(",")
        self._take()
        return Type("tuple", parts=tuple(parts))

    def _object(self) -> Type:
        members: dict[str, tuple[Type, bool]] = {}
        self._skip_separators()
        while self._next != "}":
            name = self._member_name()
            required = self._next != "?"
            if not required:
                self._take()
            self._expect(":")
            kind = self.union()
            if name is not None:
                members[name] = kind, required
            self._skip_separators()
        self._take()
        return Type("object", members=members)

    def _member_name(self) -> str | None:
        """Read the name of a member. `[key: string]` has none."""
        first = self._take()
        if first == "[":
            self._word(self._take())
            self._expect(":")
            self.union()
            self._expect("]")
            return None
        return str(self._json(first)) if first.startswith('"') else self._word(first)

    def _skip_separators(self) -> None:
        while self._next in ("\n", ";", ","):
            self._take()

    def _word(self, token: str) -> str:
        if not re.fullmatch(r"[\w$]+", token):
            raise TypeSyntaxError(self.end)
        return token

    def _json(self, token: str) -> Any:
        try:
            return json.loads(token)
        except ValueError:
            raise TypeSyntaxError(self.end) from None

    def _expect(self, wanted: str) -> None:
        if self._take() != wanted:
            raise TypeSyntaxError(self.end)

    def _take(self) -> str:
        taken, self.end = self._next, self._next_end
        if not taken:
            raise TypeSyntaxError(self.end)
        self._look()
        return taken

    def _look(self) -> None:
        found = _TOKEN.match(self._text, self.end)
        self._next = found["token"] if found else ""
        self._next_end = found.end() if found else self.end
