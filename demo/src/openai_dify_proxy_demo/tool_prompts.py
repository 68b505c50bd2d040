"""Reads what a model is told about tools and about the form of its answer.

The instructions are those of OpenAI Dify Proxy: a block behind the question, or the text of an input. Definitions stay
valid for later turns of a conversation, so earlier messages are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openai_dify_proxy_demo.marked_texts import find_between
from openai_dify_proxy_demo.memory import ModelMessage
from openai_dify_proxy_demo.tool_definitions import Definition, read_answer_type, read_tools

INSTRUCTION_INPUTS = frozenset({"tools", "tool_instructions", "system_prompt", "system", "instructions"})
"""The inputs of an app that may hold instructions."""

_OPEN, _CLOSE = "\n\n<instructions>\n", "\n</instructions>"
_RESULT, _RESULT_END = "<tool_result", "\n</tool_result>"
_RESULT_HEAD = re.compile(r'(?: name="(?P<name>[^"\n]*+)")?+(?: call="(?P<call>\d{1,9})")?+>\n')
_CURRENT = "\n\nThe new message to answer:\n\n"
"""Separates a transcript of earlier messages from the question."""

_WRONG_ANSWER = "\n\nYour answer was:\n"
"""Precedes the answer to correct, if the model does not remember it."""

_ROLE = re.compile(r"^(User|Assistant|Tool|System): ", re.MULTILINE)
_NAMES = r"([\w.-]++(?:, [\w.-]++)*+)"
_ONE = re.compile(r"must be (?:a call of the tool|a tool call of(?! one of these tools)) " + _NAMES)
_ONLY = re.compile(rf"(?:Call only (?:this tool|one of these tools)|a tool call of one of these tools): {_NAMES}")
_INVALID = re.compile(r"^Your call of ([\w.-]++) is invalid:$", re.MULTILINE)
_REQUIRED = re.compile(
    r"Your answer (?:to this message )?must be (?:a call of the tool|a tool call)|the corrected calls?\b"
)
_FORBIDDEN = "Do not call a tool in this answer."
_SINGLE = "Write at most one call"
_JSON = re.compile(r"[Aa]nswer with (?:JSON only|one JSON object only)")
_REPAIR = re.compile(
    r"^(?:Your call of [\w.-]++ is invalid:$"
    r"|Your answer must be a tool call of |Your answer is not the JSON that was asked for:$)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Result:
    """The result of a tool call. `number` is the call's number in its message, from 1."""

    name: str
    text: str
    number: int = 1


@dataclass(frozen=True)
class Demands:
    """What the instructions demand of the next answer."""

    required: bool = False
    """Whether it must be a tool call."""
    forbidden: bool = False
    """Whether it must not be one."""
    single: bool = False
    """Whether it may have one call only."""
    json: bool = False
    """Whether a text must be JSON."""
    only: tuple[str, ...] = ()
    """The tools that may be called; empty for all."""


@dataclass(frozen=True)
class Prompt:
    """A question, and the instructions that apply to it."""

    topic: str
    """The message that the answer refers to, without tool results. It may be an earlier message of the conversation."""
    results: tuple[Result, ...] = ()
    """The tool results that the message holds, in the order of their calls."""
    step: int = 0
    """How many messages with tool results have followed the topic."""
    tools: Mapping[str, Definition | None] | None = None
    """The definitions of the tools' arguments; None for free text."""
    answer: Definition | None = None
    """The type of the answer's JSON."""
    demands: Demands = Demands()
    told: bool = False
    """Whether the message itself comes with instructions."""
    repairs: bool = False
    """Whether the message asks for a corrected call or answer."""


def read_prompt(question: str, inputs: Mapping[str, Any], history: Iterable[ModelMessage]) -> Prompt:
    """Return what a question asks, with the definitions of the inputs and of the earlier messages."""
    told = "\n\n".join([*instruction_inputs(inputs).values(), *_blocks(question)])
    earlier, current = _split_transcript(without_instructions(question))
    messages = [*history, *earlier]
    repairs = _REPAIR.search(current)
    repair = current[repairs.start() :] if repairs else ""
    known = [*(block for role, text in messages if role == "user" for block in _blocks(text)), told]
    own = current[: repairs.start()].partition(_WRONG_ANSWER)[0].strip() if repairs else current
    conversation = [(role, without_instructions(text)) for role, text in messages]
    origin, step, latest = _find_topic([*conversation, ("user", own)] if own else conversation)
    return Prompt(
        topic=without_results(origin),
        results=_results(latest),
        step=step,
        tools=next((tools for text in reversed(known) if (tools := read_tools(text))), None),
        answer=next((kind for text in reversed([*known, repair]) if (kind := read_answer_type(text))), None),
        demands=_read_demands(told, repair),
        told=bool(told or repair),
        repairs=repairs is not None,
    )


def instruction_inputs(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the inputs that hold instructions about tools or about JSON."""
    texts = {
        name: text for name, text in inputs.items() if name.lower() in INSTRUCTION_INPUTS and isinstance(text, str)
    }
    return {name: text for name, text in texts.items() if read_tools(text) or _JSON.search(text)}


def without_instructions(text: str) -> str:
    """Return a message without the blocks of instructions."""
    return _without(text, _OPEN, _CLOSE)


def spoken_text(question: str) -> str:
    """Return a question without instructions and tool results: the text in which keywords count."""
    return without_results(without_instructions(question))


def without_results(text: str) -> str:
    """Return a message without the tool results."""
    return _without(text, _RESULT, _RESULT_END).strip() if _RESULT in text else text


def _without(text: str, begin: str, end: str) -> str:
    parts, at = [], 0
    for first, last, _ in find_between(text, begin, end):
        parts.append(text[at:first])
        at = last
    return "".join([*parts, text[at:]])


def _blocks(text: str) -> list[str]:
    return [block for _, _, block in find_between(text, _OPEN, _CLOSE)]


def _split_transcript(question: str) -> tuple[list[ModelMessage], str]:
    """Return the messages of the transcript before the question, if there is one, and the question."""
    transcript, mark, current = question.rpartition(_CURRENT)
    if not mark:
        return [], question
    found = [*_ROLE.finditer(transcript)]
    ends = [*(match.start() for match in found[1:]), len(transcript)][: len(found)]
    roles = ("assistant" if match[1] == "Assistant" else "user" for match in found)
    texts = (transcript[match.end() : end].strip() for match, end in zip(found, ends, strict=True))
    return list(zip(roles, texts, strict=True)), current


def _find_topic(messages: list[ModelMessage]) -> tuple[str, int, str]:
    """Return the last question that is more than results and repairs, its number of steps, and the latest results."""
    topic, step, results = "", 0, ""
    after_result = False
    for role, text in messages:
        if role != "user" or _REPAIR.match(text):
            after_result = False
        elif without_results(text):
            topic, step, results, after_result = text, 0, text, False
        else:
            step += not after_result
            results = f"{results}\n\n{text}" if after_result else text
            after_result = True
    return topic, step, results


def _results(text: str) -> tuple[Result, ...]:
    results = []
    for _, _, block in find_between(text, _RESULT, _RESULT_END):
        if head := _RESULT_HEAD.match(block):
            results.append(Result(head["name"] or "", block[head.end() :], int(head["call"] or 1)))
    return tuple(sorted(results, key=lambda result: result.number))


def _read_demands(told: str, repair: str) -> Demands:
    text = f"{told}\n{repair}"
    one = _ONE.search(text)
    only = _ONLY.search(text)
    names = _INVALID.findall(repair)
    if not names and (found := one or only):
        names = found[1].split(", ")
    return Demands(
        required=_REQUIRED.search(text) is not None,
        forbidden=_FORBIDDEN in told,
        single=_SINGLE in told,
        json=_JSON.search(text) is not None,
        only=tuple(name.rstrip(".") for name in names),
    )
