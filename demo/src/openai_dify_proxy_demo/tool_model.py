"""Answers as a model that follows its instructions about tools and about the form of the answer.

The model calls the tools that the last paragraph of the question names, or else one that it has to call. It takes the
arguments from the question: `get_weather(city=Paris)` or `get_weather({"city": "Paris"})` states them, otherwise texts
in quotation marks, numbers, and names after words such as "in" count. It answers from tool results. `THEN` separates
steps: calls after it are made once the results of the calls before it have arrived.

`CALL:<word>` makes the model misbehave; `FAULTS` and `JSON_FAULTS` list the words. It obeys when it is asked for a
correction, unless the question says `STUBBORN`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from openai_dify_proxy_demo.json_schemas import read_keys, read_schema
from openai_dify_proxy_demo.marked_texts import find_argument
from openai_dify_proxy_demo.tool_prompts import Prompt
from openai_dify_proxy_demo.tool_spellings import FAULTS, JSON_FAULTS, Call, plain_json, tagged
from openai_dify_proxy_demo.type_values import Facts, make_value

__all__ = ["FAULTS", "JSON_FAULTS", "MAX_CALLS", "tool_answer"]

MAX_CALLS = 20
"""The maximum number of calls in one question."""

_FAULT = re.compile(r"\bCALL:([\w-]+)")
_STUBBORN = re.compile(r"\bSTUBBORN\b")
_THEN = re.compile(r"\bTHEN\b")
_FINAL = re.compile(r"final[_-]")
_NAME = re.compile(r"(?<![\w.-])([A-Za-z_][\w-]*+(?:\.[\w-]++)*+)(?:\((?:(?P<json>(?=\{))|([^()]*+)\)))?+")
_WORD = re.compile(r"[a-z]{4,}+")
_COMMON_WORDS = frozenset({"call", "tool", "function", "with", "final", "result", "answer", "this", "that", "from"})

_decode = json.JSONDecoder().raw_decode


def tool_answer(prompt: Prompt) -> str | None:
    """Return the answer of the model; None if nothing asks for a tool or for JSON."""
    if calls := _Chooser(prompt).calls():
        return FAULTS.get(_fault(prompt), tagged)(calls)
    if prompt.demands.json or ("JSON" in prompt.topic and not prompt.results and read_schema(prompt.topic)):
        return JSON_FAULTS.get(_fault(prompt), plain_json)(_instance(prompt))
    if prompt.results:
        return "\n".join(f"The result of {result.name or 'the tool'} is: {result.text}" for result in prompt.results)
    return None


def _fault(prompt: Prompt) -> str:
    found = _FAULT.search(prompt.topic)
    return found[1] if found and (not prompt.repairs or _STUBBORN.search(prompt.topic)) else ""


def _instance(prompt: Prompt) -> Any:
    """Return the JSON of an answer, with the values of the latest result or of the question."""
    text = prompt.results[-1].text if prompt.results else _last_paragraph(prompt.topic)
    kind = prompt.answer or read_keys(text)
    if prompt.answer is None and (found := read_schema(prompt.topic)):
        kind, around = found
        text = text if prompt.results else around
    return {"answer": text} if kind is None else make_value(kind, Facts(text))


def _last_paragraph(text: str) -> str:
    """Return the last paragraph, which the client's user wrote: a system message precedes the question."""
    return text.rstrip().rpartition("\n\n")[2].lstrip()


@dataclass(frozen=True)
class _Mention:
    """A tool that a question names: its place, and the arguments in the parentheses behind it."""

    tool: str
    begin: int
    end: int
    stated: str = ""
    arguments: Mapping[str, Any] | None = None


class _Chooser:
    """Chooses the calls that answer a prompt."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._tools = {
            name: kind
            for name, kind in (prompt.tools or {}).items()
            if not prompt.demands.only or name in prompt.demands.only
        }
        self._inputs, text = _take_inputs(prompt.topic)
        self._text = _last_paragraph(text)

    def calls(self) -> list[Call]:
        """Return the calls of this step of the question, or the one that is demanded."""
        demands, results = self._prompt.demands, self._prompt.results
        if demands.forbidden or not self._tools:
            return []
        steps = [list(self._named_calls(part)) for part in _THEN.split(self._text)[: MAX_CALLS + 1]]
        if demands.single:
            steps = [[call] for step in steps for call in step]
        if self._prompt.step < len(steps) and steps[self._prompt.step]:
            return steps[self._prompt.step]
        final = next((name for name in self._tools if _FINAL.match(name)), None)
        if results:
            name = final or (self._unused() if demands.required else None)
            return [] if name is None else [self._call(name, results[-1].text)]
        name = self._hinted() if self._prompt.told else None
        if name is None and demands.required:
            name = final if final is not None and len(self._tools) == 1 else next(iter(self._tools))
        return [] if name is None else [self._call(name, self._text)]

    def _named_calls(self, text: str) -> Iterator[Call]:
        """Yield the calls that a text names. A tool without parentheses is called once."""
        mentions = [*islice(_find_mentions(text, self._tools), MAX_CALLS)]
        stated = {mention.tool for mention in mentions if mention.stated or mention.arguments is not None}
        several = len({mention.tool for mention in mentions}) > 1
        for mention, following in zip_longest(mentions, mentions[1:]):
            if mention.arguments is not None:
                yield Call(mention.tool, dict(mention.arguments))
            elif mention.stated:
                yield self._call(mention.tool, mention.stated)
            elif mention.tool not in stated:
                stated.add(mention.tool)
                about = text[mention.end : following.begin if following else None]
                yield self._call(mention.tool, about if several and Facts(about) else text)

    def _unused(self) -> str:
        """Return a tool that has no result yet, or else the first."""
        used = {result.name for result in self._prompt.results}
        return next((name for name in self._tools if name not in used), next(iter(self._tools)))

    def _hinted(self) -> str | None:
        """Return the first tool whose name has a word of the question."""
        words = set(_WORD.findall(self._text.lower()))
        hints = ((name, {*_WORD.findall(name.lower())} - _COMMON_WORDS) for name in self._tools)
        return next((name for name, parts in hints if parts & words and not _FINAL.match(name)), None)

    def _call(self, name: str, text: str) -> Call:
        definition = self._tools[name]
        if definition is None:
            return Call(name, {}, free=next(self._inputs, text))
        value = make_value(definition, Facts(text))
        return Call(name, value if isinstance(value, dict) else {})


def _take_inputs(text: str) -> tuple[Iterator[str], str]:
    """Return the texts of `INPUT<<…>>`, and the text without them."""
    inputs, parts, at = [], [], 0
    while found := find_argument(text, "INPUT", at):
        begin, end, content = found
        inputs.append(content.strip("\n"))
        parts.append(text[at:begin])
        at = end
    return iter(inputs), "".join([*parts, text[at:]])


def _find_mentions(text: str, tools: Container[str]) -> Iterator[_Mention]:
    at = 0
    while found := _NAME.search(text, at):
        at = found.end()
        name = found[1]
        if name not in tools:
            at = found.end(1)
        elif found["json"] is None:
            yield _Mention(name, found.start(), at, (found[3] or "").strip())
        else:
            arguments, at = _read_object(text, at)
            yield _Mention(name, found.start(), at, arguments=arguments)


def _read_object(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """Return the JSON object at a position, or None, and the position behind it."""
    try:
        value, end = _decode(text, at)
    except (ValueError, RecursionError):
        return None, at
    return (value, end) if isinstance(value, dict) else (None, at)
