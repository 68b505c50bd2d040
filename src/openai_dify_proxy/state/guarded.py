"""Access to the state that returns None instead of raising while the state is unavailable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from openai_dify_proxy.state.store import MAX_ENTRY_BYTES, WRITES, Get, Operation, StateUnavailable, Store, is_large
from openai_dify_proxy.wire.reading import UNREADABLE

_T = TypeVar("_T")

MAX_LOGGED_KEYS = 1000
"""Keys of unreadable entries that are remembered, so that each one is logged once."""

log = structlog.get_logger(__name__)


class GuardedStore:
    """A circuit breaker around a store: after a fault no run is attempted for ``pause`` seconds.

    After the pause one caller tries again, and the others receive None until it has an answer. So almost no request
    waits during an outage. A large run may have failed because of its size, so its fault is no fault of the others.
    ``clock`` returns seconds. ``faults`` counts the runs that returned None.
    """

    def __init__(self, store: Store, *, pause: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._pause = pause
        self._clock = clock
        self._open_until: float | None = None
        self._trying = False
        self._log_after = -math.inf
        self._unreadable: set[str] = set()
        self.faults = 0

    async def run(self, *operations: Operation) -> list[bytes | None] | None:
        """Return the results of ``Store.run``, or None if the state could not be reached.

        In the latter case each operation may have run, or may still run. An entry that is larger than
        ``MAX_ENTRY_BYTES`` is not written; the result is then that of ``Get``.
        """
        accepted = _without_oversized(operations)
        if self._open_until is not None:
            return await self._try(accepted)
        try:
            return await self._store.run(*accepted)
        except StateUnavailable as error:
            self._fault(error, accepted)
            return None

    def run_now(self, *operations: Operation) -> list[bytes | None] | None:
        """Return the results of ``Store.run_now``, or None if ``run`` has to be awaited. Nothing has been run then.

        Oversized entries are treated as by ``run``.
        """
        return self._store.run_now(*_without_oversized(operations)) if self._open_until is None else None

    async def _try(self, operations: Sequence[Operation]) -> list[bytes | None] | None:
        """Run the operations if the pause is over and no other run is trying."""
        if self._trying or (self._open_until is not None and self._clock() < self._open_until):
            self.faults += 1
            return None
        self._trying = True
        try:
            results = await self._store.run(*operations)
        except StateUnavailable as error:
            self._fault(error, operations)
            return None
        finally:
            self._trying = False
        self._open_until = None
        return results

    def decode(self, key: str, value: bytes | None, decode: Callable[[bytes], _T]) -> _T | None:
        """Return ``decode(value)``, or None for the value of an absent entry and for one that cannot be decoded.

        The latter is logged once per key. ``value`` is a result of ``run``.
        """
        if value is None:
            return None
        try:
            return decode(value)
        except UNREADABLE as error:
            if key not in self._unreadable:
                if len(self._unreadable) >= MAX_LOGGED_KEYS:
                    self._unreadable.clear()
                self._unreadable.add(key)
                log.warning("state_entry_unreadable", key=key, error=type(error).__name__, size=len(value))
            return None

    def _fault(self, error: StateUnavailable, operations: Sequence[Operation]) -> None:
        self.faults += 1
        now = self._clock()
        if not is_large(operations):
            self._open_until = now + self._pause
        if now >= self._log_after:
            self._log_after = now + self._pause
            log.warning("state_unavailable", reason=str(error), faults=self.faults)

    async def close(self) -> None:
        await self._store.close()


def _without_oversized(operations: Sequence[Operation]) -> Sequence[Operation]:
    """Return the operations with a ``Get`` in place of each one that writes too large an entry."""
    for operation in operations:
        if isinstance(operation, WRITES) and len(operation.value) > MAX_ENTRY_BYTES:
            return _replace_oversized(operations)
    return operations


def _replace_oversized(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    kept: list[Operation] = []
    for operation in operations:
        if isinstance(operation, WRITES) and len(operation.value) > MAX_ENTRY_BYTES:
            kind = operation.key.partition(":")[0]
            log.warning("state_entry_too_large", kind=kind, size=len(operation.value), limit=MAX_ENTRY_BYTES)
            kept.append(Get(operation.key))
        else:
            kept.append(operation)
    return tuple(kept)
