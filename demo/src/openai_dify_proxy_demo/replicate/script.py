"""Parse the keywords of a prompt into a script. The docstring of `openai_dify_proxy_demo.replicate` lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_SECONDS = 120.0
"""The maximum duration of `COLD` and `SLOW`."""

MAX_SIZE = 100_000_000
"""The maximum number of bytes of `HUGE`."""

KEYWORDS = (
    *("CREDIT", "THROTTLE", "SETTLED", "COLD", "SLOW", "ABORT", "CANCELED", "FAIL", "NSFW", "NSFW_SOME", "PARTIAL"),
    *("DATAURI", "FILE", "METADATA", "TRANSPARENT"),
)
FAULTS = (
    *("CRASH_BEFORE", "CRASH_AFTER", "DROP", "BADJSON", "HOLD", "POLLCRASH", "BADPOLL"),
    *("NULL", "EMPTY", "OBJECT", "FOREIGN", "MISLABEL"),
    *("GONE", "NOTAPICTURE", "SVG", "TRUNCATED", "CUTBODY", "BOMB", "HUGE", "ENDLESS", "SLOWBODY"),
    *("REDIRECT", "REDIRECT_PRIVATE", "REDIRECT_LOOP"),
)
"""Keywords that are commands only on a server with `faults`."""

_THROTTLE = re.compile(r"([a-z]+?)(?::(\d{1,9}))?(?:x(\d{1,9}))?")
_FOLLOW_UP = re.compile(r"UPSCALE<<(.*?)>>", re.DOTALL)


@dataclass(frozen=True)
class Throttle:
    """How creations are rejected with 429: where the delay is, its length, and how often."""

    how: str
    seconds: int
    times: int


@dataclass(frozen=True)
class ReplicateScript:
    """The behaviour of one prediction: keywords and their arguments."""

    words: Mapping[str, str]
    follow_up: str = ""
    """The keywords of predictions that use an output of this one as input."""

    def has(self, word: str) -> bool:
        return word in self.words

    def number(self, word: str, default: float) -> float:
        """Return the number of a keyword, or `default` if the keyword or its number is missing."""
        found = re.match(r"\d{1,9}(\.\d+)?", self.words.get(word, ""))
        return float(found.group()) if found else default

    def seconds(self, word: str, default: float) -> float:
        """Return the duration of a keyword, at most MAX_SECONDS, or `default`."""
        return min(self.number(word, default), MAX_SECONDS)

    @property
    def throttle(self) -> Throttle | None:
        if "THROTTLE" not in self.words:
            return None
        found = _THROTTLE.fullmatch(self.words["THROTTLE"] or "header")
        how, seconds, times = found.groups() if found else ("header", None, None)
        return Throttle(how or "header", int(seconds or 1), int(times or 1))


def read_prompt(prompt: str, *, faults: bool = False) -> ReplicateScript:
    """Return the script for a prompt. The keywords of FAULTS count only with `faults`."""
    known = (*KEYWORDS, *FAULTS) if faults else KEYWORDS
    follow_up = _FOLLOW_UP.search(prompt)
    commands = re.findall(rf"\b({'|'.join(known)})\b(?::([\w.:]*\w))?", _FOLLOW_UP.sub(" ", prompt))
    return ReplicateScript(dict(commands), follow_up.group(1) if follow_up else "")
