"""Access to the state that returns None instead of raising while the state is unavailable."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from openai_dify_proxy.state.store import Operation, StateUnavailable, Store
from openai_dify_proxy.wire.reading import UNREADABLE

_T = TypeVar("_T")

STATE_TIMEOUT = 1.0
"""The longest time that a turn waits for the state, in seconds."""

MAX_LOGGED_KEYS = 1000
"""Keys of unreadable entries that are remembered, so that each one is logged once."""

log = structlog.get_logger(__name__)


class GuardedStore:
    """A circuit breaker around a store: a run takes at most ``timeout`` seconds, and after a fault none is attempted
    for ``pause`` seconds.

    After the pause one caller tries again, and the others receive None until it has an answer. So almost no request
    waits during an outage. ``clock`` returns seconds. ``faults`` counts the runs that returned None.
    """

    def __init__(
        self,
        store: Store,
        *,
        timeout: float = STATE_TIMEOUT,
        pause: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._timeout = timeout
        self._pause = pause
        self._clock = clock
        self._open_until: float | None = None
        self._log_after = -math.inf
        self._unreadable: set[str] = set()
        self.faults = 0

    async def run(self, *operations: Operation) -> list[bytes | None] | None:
        """Return the results of ``Store.run``, or None if the state could not be reached.

        In the latter case each operation may have run, or may still run.
        """
        if self._open_until is not None:
            if self._clock() < self._open_until:
                self.faults += 1
                return None
            self._open_until = self._clock() + self._timeout
        try:
            async with asyncio.timeout(self._timeout):
                results = await self._store.run(*operations)
        except (TimeoutError, StateUnavailable) as error:
            self._fault(str(error) or f"no answer within {self._timeout:g} s")
            return None
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

    def _fault(self, reason: str) -> None:
        self.faults += 1
        now = self._clock()
        self._open_until = now + self._pause
        if now >= self._log_after:
            self._log_after = self._open_until
            log.warning("state_unavailable", reason=reason, faults=self.faults)

    async def close(self) -> None:
        await self._store.close()
