"""The scenarios of the scripted upstream.

The load generator encodes a scenario in the question, and the upstream finds it in the request body. Thus one upstream
serves nginx, the proxy and any other server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPENING = "Once"
"""The beginning of every answer, by which the client detects the first text."""

UNNUMBERED = "number=0000000"
"""The end of every question, which the load generator replaces to make questions differ."""

_STORY = (
    ' there was a model that wrote "tokens", a few letters each,\nsome *plain*, some `quoted`, '
    "and some far from ASCII: "
    "naïve café, 你好，世界, λ → μ. It never tired of it. "
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """An answer of `events` text events of `size` characters: all in one write, or one each `gap_ms` milliseconds.

    With `hold` the upstream sends the first event, and the rest once the load generator releases it. With `converse`
    each conversation has its own id, as in Dify; otherwise all have the same one.
    """

    events: int
    size: int
    gap_ms: int = 0
    hold: bool = False
    converse: bool = False

    @property
    def question(self) -> str:
        flags = f"hold={self.hold:d} converse={self.converse:d}"
        return f"SCENARIO events={self.events} size={self.size} gap={self.gap_ms} {flags} {UNNUMBERED}"

    @property
    def pieces(self) -> list[str]:
        length = self.events * self.size
        text = (OPENING + _STORY * (length // len(_STORY) + 1))[:length]
        return [text[start : start + self.size] for start in range(0, length, self.size)]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


_UNNUMBERED = UNNUMBERED.encode()
_QUESTION = re.compile(rb"SCENARIO events=(\d+) size=(\d+) gap=(\d+) hold=([01]) converse=([01])")
DEFAULT = Scenario(events=3, size=40)


def scenario_in(body: bytes | bytearray) -> Scenario:
    """Return the scenario in the body of a request, or a short default."""
    found = _QUESTION.search(body)
    if found is None:
        return DEFAULT
    events, size, gap_ms, hold, converse = map(int, found.groups())
    return Scenario(events, size, gap_ms, bool(hold), bool(converse))


@dataclass(frozen=True, slots=True)
class Script:
    """An encoded streaming answer."""

    opening: bytes
    """Status line, headers, and the first text event."""
    middle: tuple[bytes, ...]
    """The other text events."""
    ending: bytes
    """All that follows the last text, and the last chunk of the body."""


def numbered(request: bytes, number: int) -> bytes:
    """Return a request with another number in its question, and of the same length."""
    return request.replace(_UNNUMBERED, b"number=%07d" % number)
