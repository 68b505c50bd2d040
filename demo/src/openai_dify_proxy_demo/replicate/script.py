"""From the words of a prompt to what the demo does with it. The keywords are listed in `demo/replicate/__init__.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

KEYWORDS = (
    *("CREDIT", "THROTTLE", "CRASH_BEFORE", "CRASH_AFTER", "DROP", "BADJSON", "HOLD", "SETTLED"),
    *("COLD", "SLOW", "ABORT", "CANCELED", "FAIL", "NSFW", "NSFW_SOME", "PARTIAL"),
    *("NULL", "EMPTY", "OBJECT", "DATAURI", "FILE", "FOREIGN", "POLLCRASH", "BADPOLL"),
    *("GONE", "NOTAPICTURE", "SVG", "TRUNCATED", "CUTBODY", "BOMB", "HUGE", "ENDLESS", "SLOWBODY"),
    *("REDIRECT", "REDIRECT_PRIVATE", "REDIRECT_LOOP", "MISLABEL", "METADATA", "TRANSPARENT"),
)

_COMMAND = re.compile(rf"\b({'|'.join(KEYWORDS)})\b(?::([\w.:]*\w))?")
_THROTTLE = re.compile(r"([a-z]+?)(?::(\d+))?(?:x(\d+))?")
_FOLLOW_UP = re.compile(r"UPSCALE<<(.*?)>>", re.DOTALL)


@dataclass(frozen=True)
class Throttle:
    """How a creation is refused with 429: where the delay stands, how long it is, and how often."""

    how: str
    seconds: int
    times: int


@dataclass(frozen=True)
class Script:
    """What one prediction does: its keywords, each with what stands behind its colon."""

    words: Mapping[str, str]
    follow_up: str = ""
    """The keywords for predictions that are fed with a picture of this one."""

    def has(self, word: str) -> bool:
        return word in self.words

    def number(self, word: str, default: float) -> float:
        """The number behind a keyword; `default` where the keyword or the number is missing."""
        try:
            return float(self.words[word])
        except (KeyError, ValueError):
            return default

    @property
    def throttle(self) -> Throttle | None:
        if "THROTTLE" not in self.words:
            return None
        found = _THROTTLE.fullmatch(self.words["THROTTLE"] or "header")
        how, seconds, times = found.groups() if found else ("header", None, None)
        return Throttle(how or "header", int(seconds or 1), int(times or 1))


def read_script(prompt: str) -> Script:
    """The script that a prompt holds."""
    follow_up = _FOLLOW_UP.search(prompt)
    commands = _FOLLOW_UP.sub(" ", prompt)
    return Script(
        {found.group(1): found.group(2) or "" for found in _COMMAND.finditer(commands)},
        follow_up.group(1) if follow_up else "",
    )
