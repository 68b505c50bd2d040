"""Removes expired entries from the SQLite file, and the oldest entries of the largest owners if it is full.

The work is done in steps of about a millisecond, with the runs of callers between them. An index by owner and time
would make each write slower; instead a pass over the table reads one slice of it per step. A first pass counts what
each owner holds, a second one finds the oldest entries of those that must lose some. SQLite does the counting in one
statement per slice, since each row that Python fetches waits for the interpreter's lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from msgspec import Struct, field

from openai_dify_proxy.state.eviction import Usage, shares, slack
from openai_dify_proxy.state.sqlite_file import SIZE

SCAN_SECONDS = 3600.0
"""How often the table is scanned for expired entries."""

SLICE = 1000
"""Entries of a slice."""

REMOVE_ENTRIES = 200
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

_COUNT = f"""
SELECT max(last), group_concat(CASE WHEN entries THEN entries || ' ' || bytes || ' ' || owner END, char(10)) FROM (
    SELECT owner, max(key) AS last, sum(counts) AS entries, sum(counts * size) AS bytes
    FROM (SELECT key, owner, size, owner != '' AND ifnull(expires > :now, 0) AS counts FROM {_SLICE}) GROUP BY owner
)"""  # noqa: S608 - as above

_EXPIRED = f"SELECT group_concat(size || ' ' || key, char(10)) FROM {_SLICE} WHERE expires <= :now"  # noqa: S608

_Found = tuple[float, int, str]
"""When an entry was written, its size, and its key."""


class Tidying:
    """Decides when to tidy, and tidies. ``clock`` returns seconds since the epoch."""

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._limits: dict[_Unit, int] = {"entries": max_entries, "bytes": max_bytes}
        self._clock = clock
        self._started_at = 0.0
        self._written = Usage()
        self._due_after = Usage()

    def count(self, entries: int, size: int) -> None:
        """Count what a batch wrote."""
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
        self._written = Usage()
        held: dict[str, Usage] = {}
        last: str | None = ""
        while last is not None:
            expired, last = _count_slice(connection, last, now, held)
            yield
            yield from _remove(connection, expired, "expires", now)
        for unit in self._limits:
            yield from self._evict(connection, held, unit, now)
        total = _total(held)
        self._due_after = Usage(
            **{unit: max(slack(limit), (limit - total[unit]) // 8, 1) for unit, limit in self._limits.items()}
        )

    def _evict(
        self, connection: sqlite3.Connection, held: Mapping[str, Usage], unit: _Unit, now: float
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
                    yield from _remove(connection, [(size, key) for _, size, key in entries], "written", newest)


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


def _total(held: Mapping[str, Usage]) -> dict[_Unit, int]:
    return {
        "entries": sum(usage.entries for usage in held.values()),
        "bytes": sum(usage.bytes for usage in held.values()),
    }


def _count_slice(
    connection: sqlite3.Connection, last: str, now: float, held: dict[str, Usage]
) -> tuple[list[tuple[int, str]], str | None]:
    """Add the slice after the key ``last`` to ``held``. Return its expired entries (size, key), and its last key."""
    values = {"last": last, "now": now}
    end, counts = connection.execute(_COUNT, values).fetchone()
    for line in _lines(counts):
        entries, size, owner = line.split(" ", 2)
        held.setdefault(owner, Usage()).add(int(entries), int(size))
    (expired,) = connection.execute(_EXPIRED, values).fetchone()
    pairs = (line.split(" ", 1) for line in _lines(expired))
    return [(int(size), key) for size, key in pairs], end


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
    for line in _lines(lines):
        written, size, key, owner = line.split(" ", 3)
        losers[owner].add((float(written), int(size), key))
    return end


def _remove(
    connection: sqlite3.Connection, entries: list[tuple[int, str]], column: Literal["expires", "written"], until: float
) -> Iterator[None]:
    """Remove entries (size, key), except those written since then, whose ``column`` is after ``until``."""
    keys: list[str] = []
    room = REMOVE_BYTES
    for number, (size, key) in enumerate(entries, 1):
        keys.append(key)
        room -= size
        if room <= 0 or len(keys) == REMOVE_ENTRIES or number == len(entries):
            marks = ", ".join("?" * len(keys))
            statement = f"DELETE FROM entries WHERE key IN ({marks}) AND {column} <= ?"  # noqa: S608 - as above
            connection.execute(statement, [*keys, until])
            keys, room = [], REMOVE_BYTES
            yield


def _lines(text: str | None) -> list[str]:
    return [] if text is None else text.split("\n")
