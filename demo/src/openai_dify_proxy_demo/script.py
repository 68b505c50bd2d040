"""Parse the keywords of a message into a script. The docstring of the package lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from openai_dify_proxy_demo.marked_texts import find_argument

PIECES_BEFORE_FAILURE = 3
"""How many pieces of the answer precede a failure or a fault."""

MAX_PIECES = 75
"""The maximum number of pieces of an answer; longer answers have larger pieces. At DEMO_PACE 75 pieces take 1.5 s."""

MAX_CHARACTERS = 4000
"""The maximum number of pieces of an answer with `SPLIT`, which arrive without delay."""

MAX_LENGTH = 100_000
"""The maximum number of characters of `LONG`."""

MAX_TICKS = 1000
MAX_SECONDS = 120.0
"""The maximum duration of an answer with `SLOW`."""

MAX_OVERSIZE = 50_000_000
"""The maximum number of characters of `OVERSIZE`."""

Fault = Literal["cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8"]
Effect = Literal["retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation"]

_FAULTS: tuple[Fault, ...] = ("cut", "eof", "silence", "midsilence", "pings", "garbage", "badutf8")
_EFFECTS: tuple[Effect, ...] = ("retry", "moderate", "pause", "file", "cite", "tool", "partial", "annotation")

Words = tuple[str, ...]

MAX_FILES = 10
"""The maximum number of files in one answer, of each kind."""

_FORMS = ("expired", "email", "cut")

_SLOW = r"SLOW:(\d{1,9})x(\d{1,9})"

THOUGHT = "Let me read the message.\nI will repeat it & say <b>who</b> I am.\n"
CJK_TEXT = (
    "你好，世界！這是一段示範文字。こんにちは、これはデモです。안녕하세요, 데모입니다. 👋🏽 "
    "naïve\u2028second line\u2029the end"
)
"""Several scripts, an emoji with a modifier, and the separators U+2028 and U+2029."""

PRESET_ANSWER = "This answer was withheld."
"""The preset answer of output moderation."""

DRAWN_ANSWER = "Here is a picture: "
"""The text before a drawing."""

HUMAN_INPUT_QUESTION = "May I continue?"
"""The question of an app that `PAUSE` pauses."""


@dataclass(frozen=True)
class Script:
    """The behaviour of one run."""

    answer: str
    pieces: tuple[str, ...]
    delay: float | None = None
    """Seconds before each piece; None selects the server's timing."""
    thought: str = ""
    separated: bool = False
    """Whether to send the thought separately from the answer if the dialect supports it."""
    error: str | None = None
    error_midway: bool = False
    fault: Fault | None = None
    effects: frozenset[Effect] = frozenset()
    drawn: tuple[Words, ...] = ()
    """The files that the model makes: the words after each `DRAW`, in lower case."""
    made: tuple[Words, ...] = ()
    """The files that a tool makes, likewise after each `FILE`."""
    pauses: int = 0
    """How often the run pauses for human input."""
    form: str = ""
    """What is special about its forms: `expired`, `email` (no token), or `cut` (the events break off once)."""
    drops: int = 0
    """How many streams of the run break off; the run goes on."""
    oversize: int = 0
    queue: float = 0.0
    headers: float = 0.0

    def pieces_with_thought(self) -> tuple[str, ...]:
        """Return the pieces of the answer, preceded by a `<think>` block if there is a thought."""
        return (*pieces_of(f"<think>\n{self.thought}</think>\n\n"), *self.pieces) if self.thought else self.pieces


@dataclass(frozen=True)
class _Commands:
    """The text of a message without `SAY<<…>>`, in which keywords are looked up."""

    text: str

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.search(rf"\b{pattern}\b", self.text)

    def has(self, word: str) -> bool:
        return self.find(word) is not None

    def files(self, word: str) -> tuple[Words, ...]:
        """Return the words after each `DRAW:svg:internal`."""
        found = re.findall(rf"\b{word}\b((?::\w+)*)", self.text)
        return tuple(tuple(filter(None, words.lower().split(":"))) for words in found[:MAX_FILES])

    def number(self, word: str) -> float:
        found = self.find(rf"{word}:(\d{{1,9}}(?:\.\d+)?)")
        return float(found.group(1)) if found else 0.0


def _commands_of(question: str) -> _Commands:
    exact = find_argument(question, "SAY")
    return _Commands(question.replace(question[exact[0] : exact[1]], " ") if exact else question)


def read_script(
    question: str, default_answer: str, *, recalled: str = "", draws: bool = False, faults: bool = False
) -> Script:
    """Return the script for a message.

    `default_answer` answers a message without keywords, `recalled` answers `RECALL`. With `draws` the model makes a
    picture without `DRAW` too. Fault keywords count only with `faults`.
    """
    exact, commands = find_argument(question, "SAY"), _commands_of(question)
    error = commands.find(r"(MID)?ERROR(?::(\w+))?")
    pieces = pieces_of(exact[2]) if exact else _answer_pieces(commands, default_answer, recalled)
    if commands.has("SPLIT"):
        pieces = _merged(list("".join(pieces)), MAX_CHARACTERS)
    script = Script(
        answer="".join(pieces),
        pieces=pieces,
        delay=_delay(commands, len(pieces)),
        thought=THOUGHT if commands.has("THINK") else "",
        separated=commands.has("THINK:separated"),
        error=(error.group(2) or "bad") if error else None,
        error_midway=bool(error and error.group(1)),
        effects=frozenset(effect for effect in _EFFECTS if commands.has(effect.upper())),
        drawn=commands.files("DRAW") or (((),) if draws else ()),
        made=commands.files("FILE"),
        pauses=int(commands.number("PAUSE")) or int(commands.has("PAUSE")),
        form=next((kind for kind in _FORMS if commands.has(f"PAUSE:{kind}")), ""),
    )
    return _with_faults(script, commands) if faults else script


def asks_for_drawing(question: str) -> bool:
    """Return whether a message has the keyword `DRAW`."""
    return _commands_of(question).has("DRAW")


def pieces_of(text: str, size: int = 12) -> tuple[str, ...]:
    """Split text as a model streams it: words with the space before them, long words cut after `size` characters."""
    return _merged(re.findall(rf"\s*\S{{1,{size}}}|\s+", text))


def _answer_pieces(commands: _Commands, default_answer: str, recalled: str) -> tuple[str, ...]:
    if slow := commands.find(_SLOW):
        return tuple(f"tick {number} " for number in range(1, min(int(slow.group(1)), MAX_TICKS) + 1))
    if commands.has("EMPTY"):
        return ()
    if commands.has(r"LONG:\d{1,9}"):
        return _long_pieces(min(int(commands.number("LONG")), MAX_LENGTH))
    if commands.has("CJK"):
        return pieces_of(CJK_TEXT, 2)
    return pieces_of(recalled if commands.has("RECALL") else default_answer)


def _delay(commands: _Commands, pieces: int) -> float | None:
    if slow := commands.find(_SLOW):
        return min(int(slow.group(2)) / 1000, MAX_SECONDS / max(1, pieces))
    return 0.0 if commands.has("SPLIT") else None


def _with_faults(script: Script, commands: _Commands) -> Script:
    return replace(
        script,
        fault=next((fault for fault in _FAULTS if commands.has(fault.upper())), None),
        drops=int(commands.number("DROP")) or int(commands.has("DROP")),
        oversize=min(int(commands.number("OVERSIZE")), MAX_OVERSIZE),
        queue=commands.number("QUEUE"),
        headers=commands.number("HEADERS"),
    )


def _long_pieces(length: int) -> tuple[str, ...]:
    text = "".join(f"word{number:06d} " for number in range(1, length // 11 + 2))[:length]
    return _merged([text[start : start + 200] for start in range(0, length, 200)])


def _merged(pieces: list[str], most: int = MAX_PIECES) -> tuple[str, ...]:
    """Merge neighbouring pieces until at most `most` are left."""
    size = max(1, -(-len(pieces) // most))
    return tuple("".join(pieces[start : start + size]) for start in range(0, len(pieces), size))
