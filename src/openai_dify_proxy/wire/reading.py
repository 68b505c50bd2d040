"""The exceptions that msgspec raises for bytes from outside, and the facts in their texts.

msgspec reports the place and the reason of a mismatch only in an error's text, which is not a documented interface.
This is the only module that reads that text; a table of real errors in its tests pins the wording.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import MsgspecError, Struct, json

from openai_dify_proxy.wire.complexity import TooComplex, check_complexity
from openai_dify_proxy.wire.numbers import read_float

UNREADABLE = (MsgspecError, UnicodeDecodeError, RecursionError, TooComplex)
"""The exceptions for bytes that are not the expected message: msgspec's for bad JSON, types, UTF-8 or deep nesting, and
that of ``check_complexity``."""

ANY_VALUE: json.Decoder[Any] = json.Decoder(float_hook=read_float)

_WITH_PATH = re.compile(r"(.*) - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_TYPE = re.compile(r"Expected `([^`]+)`(?:, got `(\w+)`)?")
_VALUE = re.compile(r"Invalid enum value (.+)|Invalid value (.+)", re.DOTALL)
_LIMIT = re.compile(r"Expected `(\w+)` (of length )?([<>]=?) (\S+)")
_TOO_LARGE = frozenset({"Number out of range", "Integer value out of range"})
_SYNTAX = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")

ANY_KEY = ...
"""A step into some value of a mapping: msgspec does not name the key."""

Step = Any
"""A field's name, an index, or ``ANY_KEY``."""


class MissingField(Struct, frozen=True):
    name: str


class WrongType(Struct, frozen=True):
    """``expected`` and ``got`` are msgspec's names of JSON types: str, int, float, bool, null, array, object.

    ``got`` is None where the text does not name it.
    """

    expected: tuple[str, ...]
    got: str | None = None


class UnknownValue(Struct, frozen=True):
    """``shown`` is the value as Python's ``repr`` writes it, of any length."""

    shown: str


class Limit(Struct, frozen=True):
    """A number or a length beyond its limit: ``operator`` is >=, >, <= or <, ``limit`` a number in digits."""

    type: str
    of_length: bool
    operator: str
    limit: str


class NumberTooLarge(Struct, frozen=True):
    """A number that does not fit into 64 bits or a double."""


class SyntaxFault(Struct, frozen=True):
    """A syntax error; ``at`` is its byte offset, counted from 0."""

    reason: str
    at: int


Reason = MissingField | WrongType | UnknownValue | Limit | NumberTooLarge | SyntaxFault
Path = tuple[Step, ...]


class Mismatch(Struct, frozen=True):
    """Where a document does not fit its type, and why; ``reason`` is None where the text names no known one."""

    reason: Reason | None
    path: Path = ()


def decode_text(text: str) -> Any:
    """Return the value of JSON inside a string. Raises ``UNREADABLE``."""
    document = text.encode("utf-8", "surrogatepass")
    check_complexity(document)
    return ANY_VALUE.decode(document)


def read_mismatch(error: Exception) -> Mismatch:
    """Read the text of one of ``UNREADABLE``."""
    text = str(error)
    found = _WITH_PATH.fullmatch(text)
    if found is None:
        return Mismatch(_reason(text))
    return Mismatch(_reason(found[1]), tuple(_steps(found[2])))


def _steps(path: str) -> list[Step]:
    return [name or (int(index) if index else ANY_KEY) for name, index in _STEP.findall(path)]


def _reason(text: str) -> Reason | None:
    if found := _MISSING.fullmatch(text):
        return MissingField(found[1])
    if found := _TYPE.fullmatch(text):
        return WrongType(tuple(found[1].split(" | ")), found[2])
    if found := _VALUE.fullmatch(text):
        return UnknownValue(found[1] or found[2])
    if found := _LIMIT.fullmatch(text):
        return Limit(found[1], found[2] is not None, found[3], found[4])
    if found := _SYNTAX.fullmatch(text):
        return SyntaxFault(found[1], int(found[2]))
    return NumberTooLarge() if text in _TOO_LARGE else None
