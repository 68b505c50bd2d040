"""Finds the definitions of tools, and the type of an answer, in a text of instructions.

A definition is a line `name(type)`, whose type may have several lines, or `name(free text)`. The types that it refers
to follow as `type Name = …`. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from openai_dify_proxy_demo.type_texts import WORDS, Type, TypeSyntaxError, read_type

_DEFINITION = re.compile(
    r"^(?:type (?P<type>[\w$]{1,128}) = |(?P<tool>[\w.-]{1,128})\((?=\{|\(|any\b|Arguments\b|free text\)|\)))",
    re.MULTILINE,
)
_FREE_TEXT = "free text)"
_ANSWER = re.compile(r"fits this type\.[^\n]*\n")


@dataclass(frozen=True)
class Definition:
    """A type, and the named types that it refers to."""

    type: Type
    named: Mapping[str, Type] = field(default_factory=dict)


def read_tools(text: str) -> dict[str, Definition | None]:
    """Return the definitions of the tools' arguments, by the names of the tools; None for free text."""
    tools: dict[str, Definition | None] = {}
    named: dict[str, Type] = {}
    at = 0
    while found := _DEFINITION.search(text, at):
        at = found.end()
        name = found["tool"]
        if name and text.startswith(_FREE_TEXT, at):
            tools[name] = None
        elif name and text.startswith(")", at):
            tools[name] = Definition(Type("object"))
        else:
            try:
                kind, at = read_type(text, at)
            except TypeSyntaxError as error:
                at = error.at
                continue
            if not name:
                named[found["type"]] = kind
            elif text.startswith(")", at):
                named = {}
                tools[name] = Definition(kind, named)
    return tools


def read_answer_type(text: str) -> Definition | None:
    """Return the type of the answer that a text demands. Lines of a description may precede the type."""
    header = _ANSWER.search(text)
    if header is None:
        return None
    named = dict(_named_types(text, header.end()))
    at = header.end()
    while at < len(text):
        try:
            kind, at = read_type(text, at)
        except TypeSyntaxError as error:
            at = error.at
        else:
            if text[at : at + 1] in ("", "\n") and _is_known(kind, named):
                return Definition(kind, named)
        at = text.find("\n", at) + 1 or len(text)
    return None


def _named_types(text: str, at: int) -> Mapping[str, Type]:
    named = {}
    while found := _DEFINITION.search(text, at):
        at = found.end()
        if found["type"]:
            try:
                named[found["type"]], at = read_type(text, at)
            except TypeSyntaxError as error:
                at = error.at
    return named


def _is_known(kind: Type, named: Mapping[str, Type]) -> bool:
    """Return whether the type is more than a word of prose: its names, if any, are those of types."""
    if kind.kind == "name":
        return kind.value in WORDS or kind.value in named
    return all(_is_known(part, named) for part in kind.parts)
