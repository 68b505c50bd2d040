"""Applies operations to entries in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import DecodeError, Struct

from openai_dify_proxy.state.buckets import draw
from openai_dify_proxy.state.counters import count
from openai_dify_proxy.state.store import Add, Count, Draw, Operation, Put, Take


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """A value and its owner. ``expires`` and ``written`` are times of the same clock, in seconds."""

    value: bytes
    expires: float | None
    written: float
    owner: str


class Entries(Protocol):
    """Entries by key, such as a dict."""

    def get(self, key: str, /) -> Entry | None: ...

    def pop(self, key: str, default: None, /) -> Entry | None: ...

    def __setitem__(self, key: str, entry: Entry, /) -> None: ...


def apply(operations: Sequence[Operation], entries: Entries, now: float) -> list[bytes | None]:
    """Run ``operations`` on ``entries`` and return their results, as ``Store.run`` does.

    A written entry is removed first, so that the entries stay in the order in which they were written.
    """
    results: list[bytes | None] = []
    for operation in operations:
        key = operation.key
        entry = entries.get(key)
        value = None if entry is None or (entry.expires is not None and entry.expires <= now) else entry.value
        if isinstance(operation, Put) or (isinstance(operation, Add) and value is None):
            if entry is not None:
                entries.pop(key, None)
            expires = None if operation.ttl is None else now + operation.ttl
            entries[key] = Entry(operation.value, expires, now, operation.owner)
        elif isinstance(operation, Take):
            if entry is not None:
                entries.pop(key, None)
        elif isinstance(operation, Draw):
            value = _draw(operation, value, entries, now)
        elif isinstance(operation, Count):
            value = _count(operation, value, entries, now)
        results.append(value)
    return results


def _draw(operation: Draw, value: bytes | None, entries: Entries, now: float) -> bytes:
    try:
        drawn = draw(operation, value, now)
    except ValueError:  # a damaged entry counts as absent
        drawn = draw(operation, None, now)
    if drawn.value is not None:
        _put(operation.key, drawn.value, now, drawn.ttl, entries)
    return drawn.result


def _count(operation: Count, value: bytes | None, entries: Entries, now: float) -> bytes:
    try:
        counts = count(operation, value)
    except DecodeError:  # as above
        counts = count(operation, None)
    if operation.amounts:
        _put(operation.key, counts, now, operation.ttl, entries)
    return counts


def _put(key: str, value: bytes, now: float, ttl: float, entries: Entries) -> None:
    entries.pop(key, None)
    entries[key] = Entry(value, now + ttl, now, "")
