"""State in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.eviction import MAX_BYTES, Holding, shares, slack
from openai_dify_proxy.state.store import Operation, StateUnavailable

SWEEP_SECONDS = 3600.0
"""How often expired entries are removed, at most: those without an owner would stay otherwise."""


class MemoryStore:
    """A Store of one event loop. ``clock`` returns seconds."""

    def __init__(
        self, *, max_entries: int, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries = _OwnedEntries()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._swept_at = clock()
        self._closed = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        results = self.run_now(*operations)
        if results is None:
            raise StateUnavailable("the state is closed")
        return results

    def run_now(self, *operations: Operation) -> list[bytes | None] | None:
        if self._closed:
            return None
        entries, now = self._entries, self._clock()
        results = apply(operations, entries, now)
        if now >= self._swept_at + SWEEP_SECONDS:
            self._swept_at = now
            entries.remove_expired(now)
        if entries.total.entries > self._max_entries or entries.total.bytes > self._max_bytes:
            entries.remove_expired(now)
            entries.evict("entries", self._max_entries)
            entries.evict("bytes", self._max_bytes)
        return results

    async def close(self) -> None:
        self._closed = True
        self._entries = _OwnedEntries()


class _OwnerKeys(Holding, kw_only=True):
    """The entries of one owner: their keys, oldest first."""

    # Not a plain dict: finding its first item takes longer, the more items before it were deleted.
    keys: OrderedDict[str, None]


class _OwnedEntries(dict[str, Entry]):
    """Entries by key. ``apply`` only calls ``get``, ``pop``, and ``__setitem__`` for keys that are absent."""

    def __init__(self) -> None:
        super().__init__()
        self.total = Holding()
        self._holdings: dict[str, _OwnerKeys] = {}

    def __setitem__(self, key: str, entry: Entry) -> None:
        super().__setitem__(key, entry)
        if entry.owner and entry.expires is not None:
            holding = self._holdings.get(entry.owner)
            if holding is None:
                holding = self._holdings[entry.owner] = _OwnerKeys(keys=OrderedDict())
            holding.keys[key] = None
            self._count(holding, 1, len(key) + len(entry.value))

    def pop(self, key: str, default: None = None) -> Entry | None:  # type: ignore[override]  # one default is enough
        entry = super().pop(key, default)
        if entry is not None and entry.owner and entry.expires is not None:
            holding = self._holdings[entry.owner]
            del holding.keys[key]
            self._count(holding, -1, -len(key) - len(entry.value))
            if not holding.keys:
                del self._holdings[entry.owner]
        return entry

    def _count(self, holding: _OwnerKeys, entries: int, size: int) -> None:
        holding.add(entries, size)
        self.total.add(entries, size)

    def remove_expired(self, now: float) -> None:
        for key in [key for key, entry in self.items() if entry.expires is not None and entry.expires <= now]:
            self.pop(key)

    def evict(self, unit: Literal["entries", "bytes"], limit: int) -> None:
        """Remove entries if there is more than ``limit`` of ``unit``."""
        excess = getattr(self.total, unit) - limit
        if excess <= 0:
            return
        excess += slack(limit)
        while excess > 0:
            lost = shares({owner: getattr(holding, unit) for owner, holding in self._holdings.items()}, excess)
            for owner, share in lost.items():
                holding = self._holdings[owner]
                rest = getattr(holding, unit) - share
                while getattr(holding, unit) > rest:
                    self.pop(next(iter(holding.keys)))
            excess = getattr(self.total, unit) - limit + slack(limit)
