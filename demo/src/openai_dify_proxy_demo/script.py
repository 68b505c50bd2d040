"""Read a script from the keywords of a question. The package's docstring lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

PIECES_BEFORE_TROUBLE = 3
"""Pieces of the answer before a failure or a fault in its middle."""

MAX_PIECES = 75
"""Pieces of an answer at most; the pieces of longer answers are larger. At DEMO_PACE 75 pieces take 1.5 s."""

MAX_LENGTH = 100_000
"""Characters that `LONG` says at most."""

MAX_TICKS = 1000
MAX_SECONDS = 120.0
"""How long an answer with `SLOW` takes at most."""

MAX_OVERSIZE = 50_000_000
"""Characters in the event of `OVERSIZE` at most."""

Fault = Literal["cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8"]
Effect = Literal["retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation"]

_FAULTS: tuple[Fault, ...] = ("cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8")
_EFFECTS: tuple[Effect, ...] = ("retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation")

_SLOW = r"SLOW:(\d{1,9})x(\d{1,9})"

THOUGHT = "Let me see what was asked.\nI will repeat it & say <b>who</b> I am.\n"
CJK_TEXT = "你好，世界！這是示範。こんにちは、デモです。안녕하세요 👋🏽 naïve\u2028second line\u2029the end"


@dataclass(frozen=True)
class Script:
    """The behaviour of one run, read from its question."""

    answer: str
    pieces: tuple[str, ...]
    delay: float | None = None
    """Seconds before each piece; None for the server's timing."""
    thought: str = ""
    separated: bool = False
    """Send the thought apart from the answer, where the app's version supports it."""
    error: str | None = None
    error_midway: bool = False
    fault: Fault | None = None
    effects: frozenset[Effect] = frozenset()
    oversize: int = 0
    queue: float = 0.0
    headers: float = 0.0

    def pieces_with_thought(self) -> tuple[str, ...]:
        """Return the answer's pieces, after those of a `<think>` block if the model thinks."""
        return (*pieces_of(f"<think>\n{self.thought}</think>\n\n"), *self.pieces) if self.thought else self.pieces


@dataclass(frozen=True)
class _Commands:
    """The part of a question that holds keywords."""

    text: str

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.search(rf"\b{pattern}\b", self.text)

    def has(self, word: str) -> bool:
        return self.find(word) is not None

    def number(self, word: str) -> float:
        found = self.find(rf"{word}:(\d{{1,9}}(?:\.\d+)?)")
        return float(found.group(1)) if found else 0.0


def read_script(question: str, plain_answer: str, *, recalled: str = "", faults: bool = False) -> Script:
    """Return the script for a question.

    `plain_answer` answers a question without keywords, `recalled` answers `RECALL`. Unless `faults` is set, the
    keywords of faults are ordinary words.
    """
    said = re.search(r"SAY<<(.*?)>>", question, re.DOTALL)
    commands = _Commands(question.replace(said.group(), " ") if said else question)
    error = commands.find(r"(MID)?ERROR(?::(\w+))?")
    pieces = pieces_of(said.group(1)) if said else _answer_pieces(commands, plain_answer, recalled)
    script = Script(
        answer="".join(pieces),
        pieces=pieces,
        delay=_delay(commands, len(pieces)),
        thought=THOUGHT if commands.has("THINK") else "",
        separated=commands.has("THINK:separated"),
        error=(error.group(2) or "bad") if error else None,
        error_midway=bool(error and error.group(1)),
        effects=frozenset(effect for effect in _EFFECTS if commands.has(effect.upper())),
    )
    return _with_faults(script, commands) if faults else script


def pieces_of(text: str, size: int = 12) -> tuple[str, ...]:
    """Split text as a model streams it: words with the space before them, long words cut after `size` characters."""
    return _joined(re.findall(rf"\s*\S{{1,{size}}}|\s+", text))


def _answer_pieces(commands: _Commands, plain_answer: str, recalled: str) -> tuple[str, ...]:
    if slow := commands.find(_SLOW):
        return tuple(f"tick {number} " for number in range(1, min(int(slow.group(1)), MAX_TICKS) + 1))
    if commands.has("EMPTY"):
        return ()
    if commands.has(r"LONG:\d{1,9}"):
        return _long_pieces(min(int(commands.number("LONG")), MAX_LENGTH))
    if commands.has("CJK"):
        return pieces_of(CJK_TEXT, 2)
    return pieces_of(recalled if commands.has("RECALL") else plain_answer)


def _delay(commands: _Commands, pieces: int) -> float | None:
    slow = commands.find(_SLOW)
    return min(int(slow.group(2)) / 1000, MAX_SECONDS / max(1, pieces)) if slow else None


def _with_faults(script: Script, commands: _Commands) -> Script:
    return replace(
        script,
        fault=next((fault for fault in _FAULTS if commands.has(fault.upper())), None),
        oversize=min(int(commands.number("OVERSIZE")), MAX_OVERSIZE),
        queue=commands.number("QUEUE"),
        headers=commands.number("HEADERS"),
    )


def _long_pieces(length: int) -> tuple[str, ...]:
    text = "".join(f"word{number:06d} " for number in range(1, length // 11 + 2))[:length]
    return _joined([text[start : start + 200] for start in range(0, length, 200)])


def _joined(pieces: list[str]) -> tuple[str, ...]:
    """Join neighbours until at most MAX_PIECES pieces are left."""
    size = max(1, -(-len(pieces) // MAX_PIECES))
    return tuple("".join(pieces[start : start + size]) for start in range(0, len(pieces), size))
