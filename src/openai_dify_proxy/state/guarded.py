"""Access to the state that returns None instead of raising while the state is unavailable."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from openai_dify_proxy.state.store import Operation, StateUnavailable, Store

STATE_TIMEOUT = 1.0
"""The longest time that a turn waits for the state, in seconds."""

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

    def _fault(self, reason: str) -> None:
        self.faults += 1
        now = self._clock()
        self._open_until = now + self._pause
        if now >= self._log_after:
            self._log_after = self._open_until
            log.warning("state_unavailable", reason=reason, faults=self.faults)

    async def close(self) -> None:
        await self._store.close()
