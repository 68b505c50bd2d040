"""Select the entries that a full state loses: those of the largest owners, so that none displaces a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest

from msgspec import Struct

MAX_BYTES = 1 << 30
"""The default limit of the bytes in keys and values."""


class Holding(Struct):
    """Entries, and the bytes in their keys and values."""

    entries: int = 0
    bytes: int = 0

    def add(self, entries: int, size: int) -> None:
        self.entries += entries
        self.bytes += size


def slack(limit: int) -> int:
    """Return how far below ``limit`` a full state is reduced, so that it is not full again with the next entry."""
    return limit // 20


def shares(held: Mapping[str, int], excess: int, *, owners: int | None = None) -> dict[str, int]:
    """Return how much each owner loses, ``excess`` in all: the largest ones then hold the same amount.

    ``held`` is the amount by owner. Only the ``owners`` largest lose anything; less than ``excess`` if they hold less.
    """
    ranked = nlargest(len(held) if owners is None else owners, held.items(), key=lambda item: item[1])
    together = losers = level = 0
    for losers, (_, size) in enumerate(ranked, 1):
        together += size
        level = max(0, (together - excess) // losers)
        if losers < len(ranked) and level >= ranked[losers][1]:
            break
    spare = max(0, together - losers * level - excess)
    lost: dict[str, int] = {}
    for number, (owner, size) in enumerate(ranked[:losers]):
        share = size - level - (number >= losers - spare)
        if share > 0:
            lost[owner] = share
    return lost
