"""Reads the JSON object of a call, ``{"name": …, "arguments": {…}}``, and finds the name and the arguments in it."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.tools.json_scanner import JsonScanner, strict_json
from openai_dify_proxy.tools.spellings import ARGUMENT_KEYS, NAME_KEYS, OTHER_KEYS
from openai_dify_proxy.translate.turn_request import Tool

MAX_REPAIR = 16384
"""The longest text, in characters, that is repaired: json-repair takes more than linear time."""

_WORD = re.compile(r"[\w.]+")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")


class Stop(Enum):
    """Why an ``Envelope`` stopped reading."""

    TEXT = "the text ended"
    NAME = "the name is complete"
    ARGUMENTS = "the arguments, an object, begin"
    END = "the object is complete"
    BROKEN = "the object is neither strict nor relaxed JSON"


class Envelope:
    """Reads one object with the names of its members; ``name`` is set once it was read.

    The values are strict JSON. The first of several members with the same key counts.
    """

    __slots__ = ("_phase", "_scanner", "fields", "key", "name")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.name: str | None = None
        self.key: str | None = None
        self._phase: Literal["open", "first", "key", "colon", "value", "comma"] = "open"
        self._scanner: JsonScanner | None = None

    def read(self, text: str, at: int, *, whole: bool = False) -> tuple[int, Stop]:
        """Read ``text`` from ``at`` on; return the end of what was read, and why it is the end.

        At ``Stop.ARGUMENTS`` the caller reads the value itself and calls ``skip_value``, or calls ``read`` again. A
        ``whole`` object is read without a stop.
        """
        while at < len(text):
            if self._scanner is not None:
                at = self._scanner.scan(text, at)
                if self._scanner.broken:
                    return at, Stop.BROKEN
                if self._scanner.done and self._end_token(self._scanner) and not whole:
                    return at, Stop.NAME
                continue
            character = text[at]
            if character.isspace():
                at += 1
                continue
            stop = self._begin_token(character)
            if stop is not None and not (whole and stop is Stop.ARGUMENTS):
                return at + (stop is Stop.END), stop
            at += self._scanner is None
        return at, Stop.TEXT

    def skip_value(self) -> None:
        """Go on behind a value that the caller has read."""
        self._scanner = None
        self._phase = "comma"

    def close(self) -> bool:
        """Complete an object whose text ended, and return whether only closing brackets were missing."""
        if self._scanner is not None and self._phase == "value" and self._scanner.close():
            self._end_token(self._scanner)
        return self._phase == "comma"

    def _begin_token(self, character: str) -> Stop | None:
        match self._phase:
            case "open" if character in "{｛":
                self._phase = "first"
            case "first" | "key" | "comma" if character in "}｝":
                return Stop.END
            case "first" | "key":
                self._scanner = JsonScanner(key=True)
                self._phase = "key"
            case "colon" if character in ":：":
                self._phase = "value"
            case "value":
                self._scanner = JsonScanner()
                if self.key in ARGUMENT_KEYS and self.name is not None and character in "{｛":
                    return Stop.ARGUMENTS
            case "comma" if character in ",，":
                self._phase = "key"
            case _:
                return Stop.BROKEN
        return None

    def _end_token(self, scanner: JsonScanner) -> bool:
        """Store a key or a value, and return whether it was the name."""
        written = "".join(scanner.out)
        self._scanner = None
        if self._phase == "key":
            self.key = str(json.loads(written))
            self._phase = "colon"
            return False
        self._phase = "comma"
        key = str(self.key)
        self.fields.setdefault(key, written)
        if self.name is None and key in NAME_KEYS and written.startswith('"'):
            self.name = str(json.loads(written))
            return True
        return False


class Call(Struct, frozen=True, gc=False):
    """A call as written: the name, and the arguments as JSON, None if there are none."""

    name: str
    arguments: str | None


def call_of(fields: dict[str, str]) -> Call | None:
    """Return the call that the members of an object describe, None if it is none or has members of another kind."""
    inner = fields.get("function")
    if inner is not None and inner.startswith("{"):
        envelope = Envelope()
        envelope.read(inner, 0, whole=True)
        outer = {key: value for key, value in fields.items() if key != "function"}
        fields = envelope.fields | outer
    if not fields.keys() <= NAME_KEYS | ARGUMENT_KEYS | OTHER_KEYS:
        return None
    names = [value for key, value in fields.items() if key in NAME_KEYS and value.startswith('"')]
    arguments = [value for key, value in fields.items() if key in ARGUMENT_KEYS]
    if not names or len(arguments) > 1:
        return None
    return Call(json.loads(names[0]), arguments[0] if arguments else None)


def repaired_call(text: str) -> Call | None:
    """Return the call that broken JSON means, None if json-repair does not find one."""
    value = repaired_object(text)
    return None if value is None else call_of({key: _dumped(member) for key, member in value.items()})


def repaired_object(text: str) -> dict[str, Any] | None:
    """Return the object that broken JSON means, None if json-repair finds none or one with other words."""
    if len(text) > MAX_REPAIR:
        return None
    import json_repair  # noqa: PLC0415 - few answers need it, and it loads argparse

    try:
        value: object = json_repair.loads(text, skip_json_loads=True)
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and _words(text) == _words(written) and _strings_are_in(value, text):
        return value
    return None


def _words(text: str) -> list[str]:
    """Return the words, numbers and escapes of a JSON text: json-repair drops what it does not understand."""
    words = _WORD.findall(_ESCAPE.sub(r" \1 ", text).lower())
    return ["null" if word == "none" else word for word in words]


def _strings_are_in(value: object, text: str) -> bool:
    """Return whether ``text`` quotes every string of ``value``: json-repair removes line breaks at their ends."""
    if isinstance(value, str):
        forms = (json.dumps(value, ensure_ascii=False)[1:-1], value)
        return any(f"{quote}{form}{quote}" in text for quote in "\"'" for form in forms)
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_strings_are_in(item, text) for item in values)


def repaired_rest(raw: str, sent: str) -> str | None:
    """Return what completes ``sent`` to a repair of the broken arguments ``raw``, None if no repair begins with it."""
    value = repaired_object(raw)
    if value is None:
        return None
    for separators in ((", ", ": "), (",", ":")):
        for ascii_only in (False, True):
            repair = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
            if repair.startswith(sent):
                return repair[len(sent) :]
    return None


def function_arguments(arguments: str | None) -> str:
    """Return the arguments of a function as JSON; a JSON string that holds an object is decoded."""
    if arguments is None or arguments in {"null", '""'}:
        return "{}"
    if arguments.startswith('"'):
        text = str(json.loads(arguments))
        return strict_json(text) or text
    return arguments


def custom_input(arguments: str) -> str:
    """Return the free text of a custom tool: a JSON string, or the only string of an object."""
    value = json.loads(arguments)
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return value if isinstance(value, str) else arguments


def _whole_characters(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can escape and UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def arguments_of(tool: Tool, call: Call) -> str:
    """Return the arguments of a call to ``tool``, decoded if the tool takes free text."""
    if tool.custom:
        return "" if call.arguments is None else _whole_characters(custom_input(call.arguments))
    return _whole_characters(function_arguments(call.arguments))
