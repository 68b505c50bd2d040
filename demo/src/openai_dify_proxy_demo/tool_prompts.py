"""Reads what a prompt tells the model about tools and about the form of its answer.

The instructions are those of OpenAI Dify Proxy: a block behind the question, or the text of an input. Definitions stay
valid for later turns of a conversation, so earlier messages are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.memory import ModelMessage
from openai_dify_proxy_demo.type_texts import Type, read_type

_BLOCK = re.compile(r"\n\n<instructions>\n(.*?)\n</instructions>", re.DOTALL)
_TOOL = re.compile(r"^(?P<name>[\w-]+)\((?P<type>\{.*?^\}|\{[^\n]*\}|free text|)\)$", re.DOTALL | re.MULTILINE)
_JSON_TYPE = re.compile(r"fits this type\.[^\n]*\n(?:.*\n)*?(?=\{)")
_NAMED_TYPE = re.compile(r"^type ([\w$]+) = ", re.MULTILINE)
_REQUIRED_ONE = re.compile(r"must be (?:a call of the tool|a tool call of) ([\w-]+)")
_ONLY = re.compile(r"(?:Call only (?:this tool|one of these tools)|of one of these tools): ([\w, -]+)")
_RESULT = re.compile(r'<tool_result(?: name="([^"]*)")?[^>\n]*>\n(.*?)\n</tool_result>', re.DOTALL)
_REPAIR = re.compile(
    r"Your call of ([\w-]+) is invalid:|Your answer must be a tool call |Your answer is not the JSON that was asked for:"
)


@dataclass(frozen=True)
class Prompt:
    """A question and the instructions that apply to it."""

    question: str
    """The question without the instructions."""
    tools: Mapping[str, Type | None] = field(default_factory=dict)
    """The type of each tool's arguments; None for free text."""
    named: Mapping[str, Type] = field(default_factory=dict)
    answer: Type | None = None
    """The type of the answer's JSON."""
    wants_json: bool = False
    required: bool = False
    forbidden: bool = False
    only: tuple[str, ...] = ()
    """The tools that may be called; empty for all."""
    results: tuple[tuple[str, str], ...] = ()
    """The names and texts of the tool results in the question."""
    repairs: bool = False
    """Whether the question asks for a corrected call or answer."""
    topic: str = ""
    """What the question is about: itself, or the question that a repair refers to."""

    @property
    def asked(self) -> str:
        """The question without the tool results."""
        return _RESULT.sub("", self.question).strip()


def read_prompt(question: str, inputs: Mapping[str, Any], history: list[ModelMessage]) -> Prompt:
    """Return what ``question`` asks, with the definitions of the inputs and of the earlier messages."""
    told = [text for value in inputs.values() if isinstance(value, str) for text in (value,) if text != question]
    blocks = [text for role, message in history if role == "user" for text in _BLOCK.findall(message)]
    current = "\n\n".join([*told, *_BLOCK.findall(question)])
    known = [*blocks, current]
    asked = _BLOCK.sub("", question).rstrip()
    definitions = next((text for text in reversed(known) if _TOOL.search(text)), "")
    json_type = next((found for text in reversed([*known, question]) if (found := _JSON_TYPE.search(text))), None)
    repairs = _REPAIR.search(question)
    demands = f"{current}\n{question[repairs.start() :] if repairs else ''}"
    one = _REQUIRED_ONE.search(demands)
    only = _ONLY.search(demands)
    return Prompt(
        question=asked,
        tools={} if not current and not repairs else _tools_of(definitions),
        named={
            found[1]: read_type(text[found.end() :])
            for text in (definitions, json_type.string if json_type else "")
            for found in _NAMED_TYPE.finditer(text)
        },
        answer=read_type(json_type.string[json_type.end() :]) if json_type else None,
        wants_json="JSON only" in demands or "JSON object only" in demands or "not the JSON" in demands,
        required="must be a" in demands or "corrected call" in demands,
        forbidden="Do not call a tool" in demands,
        only=(one[1],) if one else tuple(name.strip() for name in only[1].split(",")) if only else (),
        results=tuple((name, text) for name, text in _RESULT.findall(asked)),
        repairs=repairs is not None,
        topic=_topic(asked, repairs, history),
    )


def _topic(asked: str, repairs: re.Match[str] | None, history: list[ModelMessage]) -> str:
    if repairs is None:
        return asked
    questions = [_BLOCK.sub("", text) for role, text in history if role == "user"]
    before = asked[: max(0, asked.find(repairs[0]))].partition("\n\nYour answer was:\n")[0]
    return before.strip() or (questions[-1] if questions else "")


def _tools_of(text: str) -> dict[str, Type | None]:
    return {
        found["name"]: None if found["type"] == "free text" else read_type(found["type"] or "{}")
        for found in _TOOL.finditer(text)
    }
