"""Makes values of types, with the numbers, texts and names that a question mentions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openai_dify_proxy_demo.tool_definitions import Definition
from openai_dify_proxy_demo.type_texts import WORDS, Type

MAX_VALUES = 1000
"""The maximum number of values in one value, which bounds types that refer to themselves."""

MAX_DEPTH = 40
MAX_OPEN_DEPTH = 6
"""The depth below which arrays are empty, and the simplest part of a union is taken."""

MAX_SOURCE = 10_000
"""The number of characters of a question in which values are looked up."""

MAX_TEXT = 200
"""The length of the question as a text, for a text that the question does not state."""

_QUOTED = re.compile(r"(?<!\w)'([^'\n]++)'(?!\w)|\"([^\"\n]++)\"|“([^“”\n]++)”|`([^`\n]++)`")
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}+(?:\.\d{1,15}+)?+(?!\.?\w)")
_NAMES = re.compile(r"\b(?:in|for|about|of|at|to|from)\s++((?:[A-Z](?:\w|[.'-](?=\w))*+,?+[ \t]?+)++)")
_PAIR = re.compile(r"(?<![\w-])(?P<name>[\w-]++)[\"']?+\s*+[=:]\s*+(?:\"([^\"\n]*+)\"|'([^'\n]*+)'|([^\s,;\"'()]++))")
_NULL = Type("literal")
_BOOLEANS = {"true": True, "false": False}


class Facts:
    """The values that a text mentions. Each text and number is used once."""

    def __init__(self, text: str) -> None:
        self._text = text[-MAX_SOURCE:]
        self._numbers = [_number(found) for found in _NUMBER.findall(self._text)]
        self._texts = [next(filter(None, found)) for found in _QUOTED.findall(self._text)]
        self._names = [found.strip(" \t,.?") for found in _NAMES.findall(self._text)]
        self._pairs: dict[str, str] = {}
        for found in _PAIR.finditer(self._text):
            self._pairs.setdefault(found["name"], next((part for part in found.groups()[1:] if part is not None), ""))

    def __bool__(self) -> bool:
        """Return whether the text mentions any value."""
        return bool(self._numbers or self._texts or self._names or self._pairs)

    def choose(self, name: str, kind: Type, *, required: bool) -> Any:
        """Return a value for a member, or None if the text has none for it."""
        stated = self._pairs.get(name)
        parts = [part for part in kind.parts if part != _NULL] if kind.kind == "union" else [kind]
        if parts and all(part.kind == "literal" for part in parts):
            return self._choice([part.value for part in parts], stated) if kind.kind == "union" else None
        first = parts[0] if parts else kind
        if first.kind == "array" and first.parts[0].kind == "name":
            return self._several(first.parts[0].value)
        return self._single(first.value, stated, required=required) if first.kind == "name" else None

    def _single(self, word: str, stated: str | None, *, required: bool) -> Any:
        match word:
            case "string" if stated is not None:
                return stated
            case "string" if self._texts or (self._names and required):
                return (self._texts or self._names).pop(0)
            case "string" if required:
                return self._text.strip()[:MAX_TEXT] or None
            case "boolean":
                return _BOOLEANS.get(stated or "")
            case "number" | "integer":
                return self._next_number(stated, whole=word == "integer")
            case _:
                return None

    def _several(self, word: str) -> list[Any] | None:
        match word:
            case "string":
                found, self._texts = self._texts or self._names, []
                return list(found) or None
            case "number" | "integer":
                numbers = [number for number in self._numbers if word == "number" or isinstance(number, int)]
                self._numbers = []
                return numbers or None
            case _:
                return None

    def _next_number(self, stated: str | None, *, whole: bool) -> int | float | None:
        if stated is not None and _NUMBER.fullmatch(stated):
            number = _number(stated)
            if number in self._numbers:
                self._numbers.remove(number)
            return number
        for index, number in enumerate(self._numbers):
            if not whole or isinstance(number, int):
                return self._numbers.pop(index)
        return None

    def _choice(self, choices: list[Any], stated: str | None) -> Any:
        """Return the first of the choices that the text mentions."""
        text = stated if stated is not None else self._text
        for choice in choices[:MAX_VALUES]:
            if str(choice) in text and re.search(rf"(?<!\w){re.escape(str(choice))}(?!\w)", text):
                return choice
        return None


def make_value(definition: Definition, facts: Facts) -> Any:
    """Return a value of a type, with the facts that fit into it. Types that refer to themselves end."""
    return _Maker(definition.named, facts).root(definition.type)


class _Maker:
    def __init__(self, named: Mapping[str, Type], facts: Facts) -> None:
        self._named = named
        self._facts = facts
        self._left = MAX_VALUES

    def root(self, kind: Type) -> Any:
        chosen = self._facts.choose("", self._resolved(kind), required=True)
        return self._value(kind, 0) if chosen is None else chosen

    def _value(self, kind: Type, depth: int) -> Any:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            return None
        kind = self._resolved(kind)
        match kind.kind:
            case "name":
                return WORDS.get(kind.value, "text")
            case "union":
                return self._value(self._part(kind.parts, depth), depth + 1)
            case "object":
                return self._object(kind, depth)
            case "array" | "tuple":
                parts = () if kind.kind == "array" and depth >= MAX_OPEN_DEPTH else kind.parts
                return [self._value(part, depth + 1) for part in parts]
            case "literal":
                return kind.value

    def _object(self, kind: Type, depth: int) -> dict[str, Any]:
        """Make an object. The members that need a value choose first, and all keep their places."""
        values: dict[str, Any] = {}
        needs = {name: required and not member.nullable for name, (member, required) in kind.members.items()}
        for name in sorted(kind.members, key=lambda name: not needs[name]):
            member, required = kind.members[name]
            value = self._facts.choose(name, self._resolved(member), required=needs[name])
            if value is None and needs[name]:
                value = self._value(member, depth + 1)
            if value is not None or required:
                values[name] = value
        return {name: values[name] for name in kind.members if name in values}

    def _part(self, parts: tuple[Type, ...], depth: int) -> Type:
        simple = [part for part in parts if self._resolved(part).kind in ("literal", "name")]
        return simple[0] if simple and depth >= MAX_OPEN_DEPTH else parts[0]

    def _resolved(self, kind: Type) -> Type:
        """Return the type that a name stands for."""
        for _ in range(MAX_OPEN_DEPTH):
            if kind.kind != "name" or kind.value not in self._named:
                return kind
            kind = self._named[kind.value]
        return Type("name", "any")


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
