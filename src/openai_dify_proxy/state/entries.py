"""Applies operations to entries in memory."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

from openai_dify_proxy.state.store import Add, Operation, Put, Take


class Entry(NamedTuple):
    """A value and its owner. ``expires`` and ``written`` are times of the same clock, in seconds."""

    value: bytes
    expires: float | None
    written: float
    owner: str


def apply(operations: Sequence[Operation], entries: MutableMapping[str, Entry], now: float) -> list[bytes | None]:
    """Run ``operations`` on ``entries`` and return their results, as ``Store.run`` does.

    A written entry is removed first, so that the entries stay in the order in which they were written.
    """
    return [_apply(operation, entries, now) for operation in operations]


def _apply(operation: Operation, entries: MutableMapping[str, Entry], now: float) -> bytes | None:
    key = operation.key
    entry = entries.get(key)
    value = None if entry is None or (entry.expires is not None and entry.expires <= now) else entry.value
    if isinstance(operation, Take):
        entries.pop(key, None)
    elif isinstance(operation, Put) or (isinstance(operation, Add) and value is None):
        entries.pop(key, None)
        expires = None if operation.ttl is None else now + operation.ttl
        entries[key] = Entry(operation.value, expires, now, operation.owner)
    return value
