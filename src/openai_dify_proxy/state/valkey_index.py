"""Record the owners of the entries on a Valkey or Redis server, and remove entries if there are too many.

Each owner has a sorted set ``…index:<owner>`` of the keys of its entries, ordered by the time of writing. The scores
also hold the sizes, so that the scores of removed keys give the decrease of its owner's usage. ``…usage:entries``
and ``…usage:bytes`` hold the usage of each owner, and their sum under the empty name; so one command reads the sum and
the largest owners. Every process adds its writes at most once a second; a killed process leaves the writes of a second
uncounted.

Before entries had owners there was one index, ``…index``, with seconds since the epoch as scores. It is used like that
of an owner, whose bytes are unknown.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from math import log2
from typing import Any, Literal

from openai_dify_proxy.state.eviction import Holding, shares, slack
from openai_dify_proxy.state.servers import Command
from openai_dify_proxy.state.store import OWNED, UNKNOWN, Add, Operation, Take

PREFIX = "openai-dify-proxy:"
INDEX = PREFIX + "index"

MAX_REMOVED = 250
"""How many entries one exchange removes."""

MAX_OWNERS = 50
"""How many owners lose entries in one round."""

FLUSH_SECONDS = 1.0
"""How often the usage is updated."""

SWEEP_SECONDS = 3600.0
"""How often a full server's indexes are searched for expired entries."""

_Unit = Literal["entries", "bytes"]

_SUM = ""
"""The member of the usage that is the sum of the others."""

_SCORES_BEGIN = 1_735_689_600.0
"""2025-01-01 in seconds since the epoch: scores count milliseconds from then on."""

_SIZES = 4096
"""Number of sizes that a score distinguishes: 128 in each power of two."""


Send = Callable[[Sequence[Command]], Awaitable[list[Any]]]
"""Sends commands and returns their replies. Raises StateUnavailable, also if a reply is an error."""


class OwnerIndex:
    """The index of entries by owner. ``clock`` returns seconds since the epoch."""

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._limits: dict[_Unit, int] = {"entries": max_entries, "bytes": max_bytes}
        self._clock = clock
        self._unflushed: dict[str, Holding] = {}
        self._flushed_at = time.monotonic()
        self._written = Holding()
        self._longest = 0.0
        self._swept_at = 0.0
        self._has_unknown = True  # until the first tidying finds no entries of unknown owners

    @property
    def due(self) -> bool:
        """Whether it is time to tidy: after a hundredth of a limit was written."""
        written, limits = self._written, self._limits
        return written.entries > limits["entries"] // 100 or written.bytes > limits["bytes"] // 100

    def commands(self, operations: Iterable[Operation]) -> list[Command]:
        """Return the commands that update the index by the last operation on each key."""
        latest = {operation.key: operation for operation in operations if isinstance(operation, OWNED)}
        now = self._clock()
        added: dict[str, list[str | float]] = {}
        removed: dict[str, list[str]] = {}
        for key, operation in latest.items():
            if isinstance(operation, Take):
                if operation.owner:
                    removed.setdefault(operation.owner, []).append(key)
            elif operation.owner and operation.ttl is not None:
                self._longest = max(self._longest, operation.ttl)
                size = len(key) + len(operation.value)
                added.setdefault(operation.owner, []).extend((_score(now, size), key))
                self._written.add(1, size)
        commands: list[Command] = [("ZADD", index_of(owner), *parts) for owner, parts in added.items()]
        commands += [("ZREM", index_of(owner), *keys) for owner, keys in removed.items()]
        if latest and self._has_unknown:
            commands.append(("ZREM", INDEX, *latest))
        if time.monotonic() >= self._flushed_at + FLUSH_SECONDS:
            commands += self.flush()
        return commands

    def count(self, operations: Iterable[Operation], replies: Iterable[Any]) -> None:
        """Count the changes of the operations, by their replies."""
        for operation, reply in zip(operations, replies, strict=True):
            if isinstance(reply, Exception) or not isinstance(operation, OWNED) or not operation.owner:
                continue
            before = 0 if reply is None else _rounded(len(operation.key) + len(reply))
            if isinstance(operation, Take):
                self._add(operation.owner, -1 if before else 0, -before)
            elif operation.ttl is not None and not (isinstance(operation, Add) and before):
                size = _rounded(len(operation.key) + len(operation.value))
                self._add(operation.owner, 0 if before else 1, size - before)

    def flush(self) -> list[Command]:
        """Return the commands that update the usage."""
        self._flushed_at = time.monotonic()
        changes, self._unflushed = self._unflushed, {}
        total = Holding()
        for change in changes.values():
            total.add(change.entries, change.bytes)
        return [
            ("ZADD", _usage_of(unit), "INCR", amount, owner)
            for owner, change in [*changes.items(), (_SUM, total)]
            for unit in self._limits
            if (amount := getattr(change, unit))
        ]

    async def tidy(self, send: Send) -> AsyncIterator[None]:
        """Remove entries if there are too many, one exchange per item. Raises StateUnavailable."""
        self._written = Holding()
        for unit, limit in self._limits.items():
            total, held = await self._largest(send, unit)
            yield
            if total <= limit:
                continue
            if self._clock() >= self._swept_at + SWEEP_SECONDS:
                self._swept_at = self._clock()
                async for _ in self._sweep(send):
                    yield
                total, held = await self._largest(send, unit)
                yield
            while total > limit - slack(limit) and held:
                lost = shares(held, total - limit + slack(limit), owners=MAX_OWNERS)
                for owner, share in lost.items():
                    async for _ in self._evict(send, owner, unit, share):
                        yield
                total, held = await self._largest(send, unit)
                yield

    async def _largest(self, send: Send, unit: _Unit) -> tuple[int, dict[str, int]]:
        """Return the sum of all usage, and that of the largest owners."""
        read: list[Command] = [("ZRANGE", _usage_of(unit), 0, MAX_OWNERS, "REV", "WITHSCORES"), ("ZCARD", INDEX)]
        *_, pairs, unknown = await send([*self.flush(), *read])
        held = {owner.decode(): round(float(score)) for owner, score in _pairs(pairs)}
        total = max(held.pop(_SUM, 0), sum(held.values()))
        self._has_unknown = unknown > 0
        if unknown and unit == "entries":
            held[UNKNOWN] = unknown
            total += unknown
        return total, {owner: size for owner, size in held.items() if size > 0}

    async def _evict(self, send: Send, owner: str, unit: _Unit, share: int) -> AsyncIterator[None]:
        """Remove the oldest entries of an owner, ``share`` of ``unit`` in all."""
        index = index_of(owner)
        while share > 0:
            most = min(share, MAX_REMOVED) if unit == "entries" else MAX_REMOVED
            (found,) = await send([("ZRANGE", index, 0, most - 1, "WITHSCORES")])
            yield
            keys: list[bytes] = []
            size = 0
            for key, score in _pairs(found):
                if share > 0:
                    keys.append(key)
                    size += _size_in(float(score))
                    share -= 1 if unit == "entries" else _size_in(float(score))
            if not keys:
                await self._forget(send, owner)
                return
            # One command per key: in a cluster the keys are on different servers.
            await self._remove(send, owner, keys, size, [("UNLINK", PREFIX.encode() + key) for key in keys])
            yield

    async def _sweep(self, send: Send) -> AsyncIterator[None]:
        """Remove the keys of expired entries from all indexes."""
        start = 0
        before = self._clock() - self._longest
        while True:
            (owners,) = await send([("ZRANGE", _usage_of("entries"), start, start + MAX_OWNERS - 1)])
            yield
            if not owners:
                break
            start += len(owners)
            for owner in [owner.decode() for owner in owners if owner]:
                async for _ in self._sweep_owner(send, owner, _score(before, 1)):
                    yield
        async for _ in self._sweep_owner(send, UNKNOWN, before):
            yield

    async def _sweep_owner(self, send: Send, owner: str, before: float) -> AsyncIterator[None]:
        found: list[Any] = [None] * MAX_REMOVED
        while len(found) == MAX_REMOVED:
            until: Command = (
                "ZRANGE",
                index_of(owner),
                "-inf",
                before,
                "BYSCORE",
                "LIMIT",
                0,
                MAX_REMOVED,
                "WITHSCORES",
            )
            (pairs,) = await send([until])
            yield
            found = list(_pairs(pairs))
            if found:
                size = sum(_size_in(float(score)) for _, score in found)
                await self._remove(send, owner, [key for key, _ in found], size)
                yield

    async def _remove(self, send: Send, owner: str, keys: list[bytes], size: int, also: Sequence[Command] = ()) -> None:
        """Remove keys from the index of an owner. ``size`` is that of their entries."""
        *_, removed = await send([*also, ("ZREM", index_of(owner), *keys)])
        self._add(owner, -removed, -(size * removed // len(keys)))  # another process may have removed some

    async def _forget(self, send: Send, owner: str) -> None:
        """Set the usage of an owner without entries to zero."""
        read: list[Command] = [("ZADD", _usage_of(unit), "INCR", 0, owner) for unit in self._limits]
        *_, entries, size = await send([*self.flush(), *read])
        self._add(owner, -round(float(entries)), -round(float(size)))

    def _add(self, owner: str, entries: int, size: int) -> None:
        if owner != UNKNOWN:
            self._unflushed.setdefault(owner, Holding()).add(entries, size)


def index_of(owner: str) -> str:
    """Return the sorted set of the keys of an owner's entries."""
    return INDEX if owner == UNKNOWN else f"{INDEX}:{owner}"


def _usage_of(unit: _Unit) -> str:
    return f"{PREFIX}usage:{unit}"


def _score(now: float, size: int) -> int:
    """Return a score that orders by time and holds the size, in the 53 bits of a float."""
    return round((now - _SCORES_BEGIN) * 1000) * _SIZES + _size_class(size)


def _size_class(size: int) -> int:
    return min(_SIZES - 1, round(128 * log2(size)))


def _size_in(score: float) -> int:
    """Return the size in a score, with an error of less than half a percent; 0 for a score of the old index."""
    return 0 if score < 1 << 33 else round(2 ** (int(score) % _SIZES / 128))


def _rounded(size: int) -> int:
    """Return ``size`` as a score would hold it, so that sums of sizes agree."""
    return round(2 ** (_size_class(size) / 128))


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
