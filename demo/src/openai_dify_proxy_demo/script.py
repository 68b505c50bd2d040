"""From the words of a question to what the demo does with it. The keywords are listed in `demo/__init__.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

PIECES_BEFORE_TROUBLE = 3
"""How many pieces of the answer are said before a fault that belongs in its middle."""

Fault = Literal["cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8"]
Effect = Literal["retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation"]

_FAULTS: tuple[Fault, ...] = ("cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8")
_EFFECTS: tuple[Effect, ...] = ("retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation")

THOUGHT = "Let me see what was asked.\nI will repeat it & say <b>who</b> I am.\n"
CJK_TEXT = "你好，世界！這是示範。こんにちは、デモです。안녕하세요 👋🏽 naïve\u2028second line\u2029the end"


@dataclass(frozen=True)
class Script:
    """What one run does, read from its question."""

    answer: str
    pieces: tuple[str, ...]
    delay: float | None = None
    """Seconds before each piece; None leaves it to the server's timing."""
    thought: str = ""
    separated: bool = False
    """The thought goes beside the answer, where the app's version can do so."""
    error: str | None = None
    error_midway: bool = False
    fault: Fault | None = None
    effects: frozenset[Effect] = frozenset()
    oversize: int = 0
    queue: float = 0.0
    headers: float = 0.0

    def pieces_with_thought(self) -> tuple[str, ...]:
        """The pieces of a model that thinks aloud, in a block before its answer."""
        return (*pieces_of(f"<think>\n{self.thought}</think>\n\n"), *self.pieces) if self.thought else self.pieces


def read_script(question: str, plain_answer: str, *, recalled: str = "") -> Script:
    """The script for a question; `plain_answer` is said when no keyword asks for another text, `recalled` to RECALL."""
    said = re.search(r"SAY<<(.*?)>>", question, re.DOTALL)
    commands = question.replace(said.group(), " ") if said else question

    def has(word: str) -> bool:
        return re.search(rf"\b{word}\b", commands) is not None

    slow = re.search(r"\bSLOW:(\d+)x(\d+)\b", commands)
    long = re.search(r"\bLONG:(\d+)\b", commands)
    error = re.search(r"\b(MID)?ERROR(?::(\w+))?\b", commands)
    size = 200 if long else 12
    if said:
        answer = said.group(1)
    elif has("EMPTY"):
        answer = ""
    elif long:
        answer = _long_text(int(long.group(1)))
    elif has("CJK"):
        answer, size = CJK_TEXT, 2
    elif slow:
        answer = "".join(f"tick {number} " for number in range(1, int(slow.group(1)) + 1))
    elif has("RECALL"):
        answer = recalled
    else:
        answer = plain_answer
    return Script(
        answer=answer,
        pieces=tuple(f"tick {number} " for number in range(1, int(slow.group(1)) + 1))
        if slow and not said
        else _pieces(answer, size, whole=bool(long)),
        delay=int(slow.group(2)) / 1000 if slow else None,
        thought=THOUGHT if has("THINK") else "",
        separated=has("THINK:separated"),
        error=(error.group(2) or "bad") if error else None,
        error_midway=bool(error and error.group(1)),
        fault=next((fault for fault in _FAULTS if has(fault.upper())), None),
        effects=frozenset(effect for effect in _EFFECTS if has(effect.upper())),
        oversize=int(_number("OVERSIZE", commands)),
        queue=_number("QUEUE", commands),
        headers=_number("HEADERS", commands),
    )


def pieces_of(text: str) -> tuple[str, ...]:
    """Text as a model would stream it: words with the space before them, long words cut."""
    return _pieces(text, 12, whole=False)


def _pieces(text: str, size: int, *, whole: bool) -> tuple[str, ...]:
    if whole:
        return tuple(text[start : start + size] for start in range(0, len(text), size))
    return tuple(re.findall(rf"\s*\S{{1,{size}}}|\s+", text))


def _long_text(length: int) -> str:
    words = "".join(f"word{number:06d} " for number in range(1, length // 11 + 2))
    return words[:length]


def _number(word: str, commands: str) -> float:
    found = re.search(rf"\b{word}:(\d+(?:\.\d+)?)", commands)
    return float(found.group(1)) if found else 0.0
