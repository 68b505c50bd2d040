"""Questions whose answers anyone can derive, so that clients check every answer without asking the upstream.

A question names its client and number, the number of events of its answer, the time between them, and how the upstream
shall misbehave.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from bench.scenarios import OPENING

Fault = Literal["none", "slow", "rejected", "full", "midway", "cut", "silence"]
"""rejected: an error before the run; full: Dify has no slot; midway: an error event after some text; cut: the
connection is aborted after some text; silence: nothing more comes after some text."""

FAILING: frozenset[Fault] = frozenset({"rejected", "full", "midway", "cut", "silence"})

SLOWER = 3
"""How much longer the time between events is with the fault slow."""

MARKER = re.compile(r"c\d+-\d+")
_QUESTION = re.compile(r"SOAK (c\d+-\d+) events=(\d+) gap=(\d+) fault=(\w+)")


@dataclass(frozen=True, slots=True)
class Question:
    """``marker`` is unique: c, the number of the client, and that of its question. ``gap`` is in milliseconds."""

    marker: str
    events: int
    gap: int
    fault: Fault = "none"

    @property
    def text(self) -> str:
        return f"SOAK {self.marker} events={self.events} gap={self.gap} fault={self.fault}"

    @property
    def pieces(self) -> list[str]:
        """The texts of the answer's events. Each contains the marker, so a foreign piece is recognized as such."""
        return [
            f"{OPENING if number == 0 else ' then'} {self.marker}/{number} {_digest(self.marker, number)}"
            for number in range(self.events)
        ]

    @property
    def answer(self) -> str:
        return "".join(self.pieces)

    @property
    def seconds(self) -> float:
        """How long the answer takes."""
        return self.events * self.gap / 1000 * (SLOWER if self.fault == "slow" else 1)


def questions_in(text: str) -> list[Question]:
    """Return the questions in a text, such as a transcript."""
    return [Question(marker, int(events), int(gap), fault) for marker, events, gap, fault in _QUESTION.findall(text)]


def client_of(marker: str) -> str:
    return marker.partition("-")[0]


def _digest(marker: str, number: int) -> str:
    return hashlib.sha256(f"{marker}/{number}".encode()).hexdigest()[:12]


def picture(marker: str) -> bytes:
    """Return the PNG that the image model makes of a prompt: 16 by 16 pixels."""
    pixels = (hashlib.sha256(marker.encode()).digest() * 24)[: 16 * 48]
    rows = b"".join(b"\0" + pixels[row * 48 : row * 48 + 48] for row in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
