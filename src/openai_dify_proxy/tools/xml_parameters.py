"""Reads ``<parameter=city>Paris</parameter>`` up to the end of its call, with the types of the tool's schema."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from openai_dify_proxy.tools.json_scanner import strict_json
from openai_dify_proxy.tools.spellings import (
    BLOCK_CLOSERS,
    CALL_CLOSERS,
    HOLD,
    NO_MARKS,
    OPENERS,
    PARAMETER_CLOSERS,
    PARAMETERS,
    find_mark,
)
from openai_dify_proxy.translate.turn_request import Tool

_MARKS = (*PARAMETERS, *PARAMETER_CLOSERS)
_ENDS = {"call_end": CALL_CLOSERS, "block_end": BLOCK_CLOSERS, "opener": OPENERS}


MAX_SCHEMAS = 64


class ParameterReader:
    """Collects the text of a call's parameters until its end is certain, then separates them.

    The first mark is that of a parameter. A value may contain marks as text. The call ends at ``</function>`` right
    behind ``</parameter>``; if one of both is missing, behind the other at the next mark that begins or ends a block.
    ``done`` is true at the end, and ``rest`` is text that was read and follows the call.
    """

    __slots__ = ("_blank", "_end", "_tokens", "done", "rest", "values")

    def __init__(self) -> None:
        self.done = False
        self.rest = ""
        self.values: list[tuple[str, str]] = []
        self._tokens: list[tuple[str, str, str]] = []  # kind, text, name
        self._end = ""  # the kind of the last mark that may be the last one
        self._blank = True  # only white space was read since the last mark

    def read(self, text: str, at: int, *, final: bool) -> int:
        """Read ``text`` from ``at`` on, and return the end of what was read."""
        while at < len(text) and not self.done:
            if plain := NO_MARKS.match(text, at):
                self._text(plain[0])
                at = plain.end()
                continue
            kind, end, name = self._mark(text, at, final=final)
            if kind == HOLD:
                return at
            if kind == "text":
                self._text(text[at:end])
            elif self._ends(kind):
                self.done = True
                if kind == "call_end":
                    self._add(kind, text[at:end], name)
                    at = end
            else:
                self._add(kind, text[at:end], name)
                self._end = kind if kind != "parameter" else ""
                self._blank = True
            at = at if self.done else end
        if self.done:
            self._separate(len(self._tokens))
        return at

    def close(self) -> bool:
        """End the call at the last mark that may end it, as the text ended; return whether there is one."""
        ends = [index for index, (kind, *_) in enumerate(self._tokens) if kind.endswith("_end")]
        names = [index for index, (kind, *_) in enumerate(self._tokens) if kind == "parameter"]
        if not ends or names[-1] > ends[-1]:
            return False
        last = ends[-1] + 1
        self.rest = "".join(text for _, text, _ in self._tokens[last:])
        self._separate(last)
        self.done = True
        return True

    def _ends(self, kind: str) -> bool:
        """Return whether the mark ``kind`` makes the end of the call certain."""
        if not self._blank:
            return False
        if kind == "call_end":
            return self._end == "parameter_end"
        return kind in {"block_end", "opener"} and self._end in {"parameter_end", "call_end"}

    def _mark(self, text: str, at: int, *, final: bool) -> tuple[str, int, str]:
        found = find_mark(_MARKS, text, at, final=final)
        hold = found == HOLD
        if found is not None and found != HOLD:
            return found.kind, found.end, found.name
        for kind, marks in _ENDS.items():
            found = find_mark(marks, text, at, final=final)
            if found is not None and found != HOLD:
                return kind, found.end, ""
            hold = hold or found == HOLD
        return (HOLD, at, "") if hold else ("text", at + 1, "")

    def _text(self, text: str) -> None:
        self._add("text", text, "")
        self._blank = self._blank and text.isspace()

    def _add(self, kind: str, text: str, name: str) -> None:
        self._tokens.append((kind, text, name))

    def _separate(self, end: int) -> None:
        tokens = self._tokens[:end]
        starts = [index for index, (kind, *_) in enumerate(tokens) if kind == "parameter"]
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            inner = tokens[start + 1 : stop]
            closers = [index for index, (kind, *_) in enumerate(inner) if kind == "parameter_end"]
            others = [index for index, (kind, *_) in enumerate(inner) if kind in {"call_end", "block_end"}]
            last = closers[-1] if closers else others[-1] if others else len(inner)
            self.values.append((tokens[start][2], "".join(text for _, text, _ in inner[:last])))


class ParameterTypes:
    """Decodes the text of a parameter by the schema of its tool."""

    __slots__ = ("_properties", "_schema")

    def __init__(self, tool: Tool) -> None:
        try:
            schema = msgspec.json.decode(tool.parameters or b"{}")
        except (msgspec.DecodeError, RecursionError):
            schema = {}
        self._schema: dict[str, Any] = schema if isinstance(schema, dict) else {}
        properties = self._schema.get("properties")
        self._properties: dict[str, Any] = properties if isinstance(properties, dict) else {}

    def arguments(self, values: list[tuple[str, str]]) -> str:
        """Return the parameters as a JSON object."""
        members = dict.fromkeys(name for name, _ in values)
        texts = dict(reversed(values))
        return "{" + ", ".join(f"{_string(name)}: {self._value(name, texts[name])}" for name in members) + "}"

    def _value(self, name: str, text: str) -> str:
        text = re.sub(r"\A\r?\n|\r?\n\Z", "", text)
        types = self._types(self._properties.get(name))
        bare = text.strip()
        written = strict_json(bare.lower() if bare.lower() in {"true", "false", "null"} else bare)
        if written is not None and not written.startswith('"'):
            value = json.loads(written)
            if not types:
                fits = isinstance(value, dict | list)
            elif "string" in types:
                fits = value is None and "null" in types
            else:
                fits = True
            if fits:
                return written
        return _string(text)

    def _types(self, schema: object) -> set[str]:
        """Return the JSON types that a schema names, at most those of ``MAX_SCHEMAS`` parts of it."""
        types: set[str] = set()
        pending = [schema]
        for _ in range(MAX_SCHEMAS):
            match pending.pop() if pending else None:
                case {"$ref": str(reference)} if reference.startswith("#/"):
                    pending.append(self._resolve(reference))
                case {"type": str(name)}:
                    types.add(name)
                case {"type": [*names]}:
                    types.update(name for name in names if isinstance(name, str))
                case {"enum": [*values]}:
                    types.update(_type_of(value) for value in values)
                case {"const": value}:
                    types.add(_type_of(value))
                case {"anyOf": [*choices]} | {"oneOf": [*choices]} | {"allOf": [*choices]}:
                    pending += choices[:MAX_SCHEMAS]
                case _:
                    pass
        return types

    def _resolve(self, reference: str) -> object:
        value: object = self._schema
        for part in reference[2:].split("/"):
            value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
        return value


def _type_of(value: object) -> str:
    return "string" if isinstance(value, str) else "null" if value is None else "other"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
