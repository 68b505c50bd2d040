"""Access to the state that returns None, rather than raising, while the state is unavailable."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from openai_dify_proxy.state.store import Operation, StateUnavailable, Store

STATE_TIMEOUT = 1.0
"""Seconds for which a turn waits for the state at most."""

log = structlog.get_logger(__name__)


class GuardedStore:
    """A circuit breaker around a store: runs last ``timeout`` seconds at most, and none is tried for ``pause`` seconds
    after a fault.

    After the pause one caller tries, while the others get None until it has an answer: however long the state is away,
    almost no request waits for it. ``clock`` returns seconds. ``faults`` counts the runs that returned None.
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
        self._away_until: float | None = None
        self._quiet_until = -math.inf
        self.faults = 0

    async def run(self, *operations: Operation) -> list[bytes | None] | None:
        """Return what ``Store.run`` returns, or None where the state could not be reached.

        Then each operation may have been run or not, now or a little later.
        """
        if self._away_until is not None:
            if self._clock() < self._away_until:
                self.faults += 1
                return None
            self._away_until = self._clock() + self._timeout
        try:
            async with asyncio.timeout(self._timeout):
                results = await self._store.run(*operations)
        except (TimeoutError, StateUnavailable) as error:
            self._fault(str(error) or f"no answer within {self._timeout:g} s")
            return None
        self._away_until = None
        return results

    def _fault(self, reason: str) -> None:
        self.faults += 1
        now = self._clock()
        self._away_until = now + self._pause
        if now >= self._quiet_until:
            self._quiet_until = self._away_until
            log.warning("state_unavailable", reason=reason, faults=self.faults)

    async def close(self) -> None:
        await self._store.close()
