"""Removes expired entries from the SQLite file, and the oldest entries of the largest owners if it is full.

The work is done in steps of about a millisecond, with the runs of callers between them. An index by owner and time
would make each write slower; instead a pass over the table reads one slice of it per step. A first pass counts the
entries of each owner, a second one finds the oldest entries of the largest owners. A slice is fetched as one row,
since the thread waits for the interpreter's lock with each row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from msgspec import Struct, field

from openai_dify_proxy.state.eviction import Holding, shares, slack
from openai_dify_proxy.state.sqlite_file import SIZE

SCAN_SECONDS = 3600.0
"""How often the table is scanned for expired entries."""

SLICE = 1000
"""Entries of a slice."""

REMOVE_ENTRIES = 100
"""How many entries one step removes."""

REMOVE_BYTES = 4 * 1024 * 1024
"""How many bytes one step removes, or one entry."""

MAX_OWNERS = 50
"""How many owners lose entries in one pass."""

MAX_FOUND = 20_000
"""How many entries one pass finds for removal."""

ROUNDING = 0.001
"""SQLite writes times as text with 15 digits; in seconds."""

_Unit = Literal["entries", "bytes"]

_SLICE = (
    f"(SELECT key, owner, expires, written, {SIZE} AS size FROM entries WHERE key > :last ORDER BY key LIMIT {SLICE})"  # noqa: S608 - constants
)

_COUNT = f"""SELECT max(key),
    group_concat(CASE WHEN owner != '' AND expires > :now THEN size || ' ' || owner END, char(10)),
    group_concat(CASE WHEN expires <= :now THEN size || ' ' || key END, char(10))
FROM {_SLICE}"""  # noqa: S608 - as above

_Found = tuple[float, int, str]
"""When an entry was written, its size, and its key."""


class Tidying:
    """Decides when to tidy, and tidies. ``clock`` returns seconds since the epoch."""

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._limits: dict[_Unit, int] = {"entries": max_entries, "bytes": max_bytes}
        self._clock = clock
        self._started_at = 0.0
        self._written = Holding()
        self._due_after = Holding()
        self._removed: list[str] = []

    def take_removed(self) -> list[str]:
        """Return the keys of the entries that were removed since the last call."""
        removed, self._removed = self._removed, []
        return removed

    def count(self, entries: int, size: int) -> None:
        """Count the entries and bytes that a batch wrote."""
        self._written.add(entries, size)

    @property
    def due(self) -> bool:
        """Whether it is time to tidy: after an hour, or after so many writes that the state may be full."""
        written, due_after = self._written, self._due_after
        much = written.entries >= due_after.entries or written.bytes >= due_after.bytes
        return much or self._clock() >= self._started_at + SCAN_SECONDS

    def steps(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Tidy, one step per item. Raises sqlite3.Error."""
        self._started_at = now = self._clock()
        self._written = Holding()
        held: dict[str, Holding] = {}
        last: str | None = ""
        while last is not None:
            expired, last = _count_slice(connection, last, now, held)
            yield
            yield from self._remove(connection, expired, "expires", now)
        for unit in self._limits:
            yield from self._evict(connection, held, unit, now)
        total = _total(held)
        self._due_after = Holding(
            **{unit: max(slack(limit), (limit - total[unit]) // 8, 1) for unit, limit in self._limits.items()}
        )

    def _evict(
        self, connection: sqlite3.Connection, held: Mapping[str, Holding], unit: _Unit, now: float
    ) -> Iterator[None]:
        limit = self._limits[unit]
        if _total(held)[unit] <= limit:
            return
        while (excess := _total(held)[unit] - limit + slack(limit)) > 0:
            lost = shares({owner: getattr(usage, unit) for owner, usage in held.items()}, excess, owners=MAX_OWNERS)
            losers = {owner: _Loser(unit, share, MAX_FOUND // len(lost)) for owner, share in lost.items()}
            last: str | None = ""
            while last is not None:
                last = _search_slice(connection, last, now, losers)
                yield
            found = {owner: loser.oldest() for owner, loser in losers.items()}
            if not any(found.values()):
                return  # another process has removed them
            for owner, entries in found.items():
                if entries:
                    held[owner].add(-len(entries), -sum(size for _, size, _ in entries))
                    newest = entries[-1][0] + ROUNDING
                    by_key = sorted(((size, key) for _, size, key in entries), key=lambda entry: entry[1])
                    yield from self._remove(connection, by_key, "written", newest)  # many of one page at once

    def _remove(
        self,
        connection: sqlite3.Connection,
        entries: list[tuple[int, str]],
        column: Literal["expires", "written"],
        until: float,
    ) -> Iterator[None]:
        """Remove entries (size, key), except newer versions, which have a ``column`` after ``until``."""
        keys: list[str] = []
        room = REMOVE_BYTES
        for number, (size, key) in enumerate(entries, 1):
            keys.append(key)
            room -= size
            if room <= 0 or len(keys) == REMOVE_ENTRIES or number == len(entries):
                marks = ", ".join("?" * len(keys))
                statement = f"DELETE FROM entries WHERE key IN ({marks}) AND {column} <= ?"  # noqa: S608 - as above
                connection.execute(statement, [*keys, until])
                self._removed += keys
                keys, room = [], REMOVE_BYTES
                yield


class _Loser(Struct):
    """An owner that loses its oldest entries: a ``share`` of ``unit``, but at most ``most`` entries."""

    unit: _Unit
    share: int
    most: int
    bound: float = float("inf")
    """Entries that were written later stay."""
    found: list[_Found] = field(default_factory=list)

    def add(self, entry: _Found) -> None:
        self.found.append(entry)
        if len(self.found) >= 2 * self.most:
            self.oldest()

    def oldest(self) -> list[_Found]:
        """Return the oldest entries found so far that make up the share, and forget the others."""
        self.found.sort()
        weight = 0
        for number, (_, size, _) in enumerate(self.found, 1):
            weight += 1 if self.unit == "entries" else size
            if weight >= self.share or number == self.most:
                del self.found[number:]
                self.bound = self.found[-1][0]
        return self.found


def _total(held: Mapping[str, Holding]) -> dict[_Unit, int]:
    return {
        "entries": sum(usage.entries for usage in held.values()),
        "bytes": sum(usage.bytes for usage in held.values()),
    }


def _count_slice(
    connection: sqlite3.Connection, last: str, now: float, held: dict[str, Holding]
) -> tuple[list[tuple[int, str]], str | None]:
    """Add the slice after the key ``last`` to ``held``. Return its expired entries (size, key), and its last key."""
    end, counted, expired = connection.execute(_COUNT, {"last": last, "now": now}).fetchone()
    for size, owner in _pairs(counted):
        holding = held.get(owner)
        if holding is None:
            holding = held[owner] = Holding()
        holding.add(1, size)
    return list(_pairs(expired)), end


def _search_slice(connection: sqlite3.Connection, last: str, now: float, losers: Mapping[str, _Loser]) -> str | None:
    """Add the old entries in the slice after the key ``last`` to ``losers``. Return the slice's last key."""
    marks = ", ".join(f":owner{number}" for number in range(len(losers)))
    values: dict[str, object] = {f"owner{number}": owner for number, owner in enumerate(losers)}
    values |= {"last": last, "now": now, "bound": max(loser.bound for loser in losers.values())}
    end: str | None
    end, lines = connection.execute(
        f"""SELECT max(key), group_concat(
            CASE WHEN owner IN ({marks}) AND expires > :now AND written <= :bound
            THEN written || ' ' || size || ' ' || key || ' ' || owner END, char(10)
        ) FROM {_SLICE}""",  # noqa: S608 - only marks and constants
        values,
    ).fetchone()
    for line in () if lines is None else lines.split("\n"):
        written, size, key, owner = line.split(" ", 3)
        losers[owner].add((float(written), int(size), key))
    return end


def _pairs(lines: str | None) -> Iterator[tuple[int, str]]:
    """Read lines of a size and a text."""
    for line in () if lines is None else lines.split("\n"):
        size, _, text = line.partition(" ")
        yield int(size), text
