"""The part of the state that a process answers from memory while it has the SQLite file for itself.

It knows the entries that were lately written or read, and that the file certainly does not have some others. Operations
on them are applied here. The changes are logged, and handed over in batches to be written to the file; a change that
was handed over may be forgotten here, since whoever reads the file for the overlay sees the changes that are not
written yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from openai_dify_proxy.state.change_log import ChangeLog
from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.store import LARGE_BYTES, WRITES, Add, Get, Operation, Take

MAX_ENTRIES = 16_384
"""The largest number of entries that are known beside the changed ones."""

MAX_WEIGHT = 16 * 1024 * 1024
"""The largest weight of these entries."""

ENTRY_WEIGHT = 512
"""The weight of an entry beside the bytes of its key and value: the memory of the objects."""


_UNKNOWN: Final = Entry(b"", None, 0.0, "")
"""Stands for an entry that only the file knows."""


class Overlay:
    """Entries by key. ``may_hold`` returns whether the file may have a key.

    The known entries have two generations: when the recent ones are too many, they become the older ones, and those
    are forgotten. None is a known entry that does not exist. ``weight`` is the weight of the changes, and ``unlogged``
    has those that are not logged yet.
    """

    def __init__(self, may_hold: Callable[[str], bool]) -> None:
        self.weight = 0
        self.unlogged: dict[str, Entry | None] = {}
        self._may_hold = may_hold
        self._changes: dict[str, Entry | None] = {}
        self._recent: dict[str, Entry | None] = {}
        self._older: dict[str, Entry | None] = {}
        self._recent_weight = 0
        self._held: dict[str, int] = {}

    # Operations

    def run(self, operations: Sequence[Operation], now: float, log: ChangeLog) -> list[bytes | None] | None:
        """Apply operations and return their results, or None, without any effect, if the file is necessary.

        Takes are committed to ``log`` first, with all changes before them.
        """
        before = self._find_all(operations, now)
        if before is None:
            return None
        after = before.copy()
        results = apply(operations, after, now)
        changed: dict[str, Entry | None] = {}
        weight = 0
        taken = False
        for operation in operations:
            key = operation.key
            entry = after.get(key)
            if entry is not before.get(key):
                changed[key] = entry
                weight += ENTRY_WEIGHT + len(key) + (0 if entry is None else len(entry.value))
                taken = taken or isinstance(operation, Take)
        if taken:
            if not log.append(self.unlogged | changed):
                return None
            self.unlogged = {}
        else:
            self.unlogged |= changed
        self._changes |= changed
        self.weight += weight
        return results

    def _find_all(self, operations: Sequence[Operation], now: float) -> dict[str, Entry] | None:
        """Return the present entries of the operations.

        None if the file is necessary: for entries that only it knows, for a large run, and for a write that may not be
        lost for a moment.
        """
        found: dict[str, Entry] = {}
        size = 0
        changes, held, may_hold = self._changes, self._held, self._may_hold
        for operation in operations:
            key = operation.key
            entry = changes.get(key, _UNKNOWN)
            if entry is _UNKNOWN and (entry := self._read(key)) is _UNKNOWN:
                if may_hold(key) or not key.isascii():
                    return None  # SQLite rejects some keys, and their run has to fail alone
                entry = None
            if key in held:
                return None
            if entry is not None:
                found[key] = entry
            if isinstance(operation, WRITES):
                if not operation.deferred and not (isinstance(operation, Add) and _has_value(entry, now)):
                    return None
                size += len(operation.value)
            elif isinstance(operation, Get) and operation.large:
                return None
        return found if size <= LARGE_BYTES else None

    def log_changes(self, log: ChangeLog) -> bool:
        """Log all changes. Return False if that is not possible now."""
        unlogged, self.unlogged = self.unlogged, {}
        return not unlogged or log.append(unlogged)

    def take_changes(self) -> Mapping[str, Entry | None]:
        """Return the changes since the last call, which are then known like entries that were read."""
        changes, self._changes = self._changes, {}
        self.unlogged = {}
        self._recent |= changes
        self._recent_weight += self.weight
        self.weight = 0
        self._age()
        return changes

    # What is known

    def unknown(self, operations: Sequence[Operation]) -> list[str]:
        """Return the keys of the operations that have to be read from the file."""
        keys = {operation.key for operation in operations}
        return [key for key in keys if self._find(key) is _UNKNOWN and self._may_hold(key)]

    def learn(self, entries: Mapping[str, Entry | None]) -> None:
        """Add entries that were read from the file, except those that have become known, or are held."""
        for key, entry in entries.items():
            if key not in self._held and self._find(key) is _UNKNOWN:
                self._recent[key] = entry
                self._recent_weight += _weight(key, entry)
        self._age()

    def forget(self, keys: Iterable[str]) -> None:
        """Forget entries that were read, or whose changes were handed over."""
        for key in keys:
            self._recent.pop(key, None)
            self._older.pop(key, None)

    def forget_all(self) -> None:
        """Forget all such entries."""
        self._recent, self._older, self._recent_weight = {}, {}, 0

    @property
    def held(self) -> Iterable[str]:
        """The keys between ``hold`` and ``unhold``."""
        return self._held.keys()

    def hold(self, operations: Sequence[Operation]) -> None:
        """Answer nothing about the entries of these operations until ``unhold``: the file is about to change."""
        for operation in operations:
            self._held[operation.key] = self._held.get(operation.key, 0) + 1

    def unhold(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            count = self._held.pop(operation.key) - 1
            if count:
                self._held[operation.key] = count
        self.forget(operation.key for operation in operations)

    def _find(self, key: str) -> Entry | None:
        found = self._changes.get(key, _UNKNOWN)
        return self._read(key) if found is _UNKNOWN else found

    def _read(self, key: str) -> Entry | None:
        """Return an entry that was read, or whose change was handed over."""
        found = self._recent.get(key, _UNKNOWN)
        if found is _UNKNOWN and (found := self._older.get(key, _UNKNOWN)) is not _UNKNOWN:
            self._recent[key] = found
            self._recent_weight += _weight(key, found)
        return found

    def _age(self) -> None:
        if len(self._recent) > MAX_ENTRIES // 2 or self._recent_weight > MAX_WEIGHT // 2:
            self._older, self._recent, self._recent_weight = self._recent, {}, 0


def _has_value(entry: Entry | None, now: float) -> bool:
    return entry is not None and (entry.expires is None or entry.expires > now)


def _weight(key: str, entry: Entry | None) -> int:
    return ENTRY_WEIGHT + len(key) + (0 if entry is None else len(entry.value))
