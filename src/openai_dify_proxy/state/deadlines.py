"""Time limits for many futures with one timer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from functools import partial
from itertools import count

from openai_dify_proxy.state.store import StateUnavailable

LATE_STEPS = 10
"""Steps of the event loop after a deadline in which a result still counts. A loop that was busy examines its timers
before it reads what has arrived meanwhile, and reading takes several steps."""


def call_late(loop: asyncio.AbstractEventLoop, callback: Callable[[], object], steps: int = LATE_STEPS) -> None:
    """Call ``callback`` after so many steps of the loop."""
    loop.call_soon(*((call_late, loop, callback, steps - 1) if steps else (callback,)))


class Deadlines:
    """Fails futures of one event loop that are not done in time, with StateUnavailable.

    Runs are usually done long before their deadline, so the timer is set again only when it fires.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[float, int, float, asyncio.Future[list[bytes | None]]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[list[bytes | None]], timeout: float) -> None:
        """Fail ``future`` unless it is done within ``timeout`` seconds."""
        pending = self._pending
        while pending and pending[0][3].done():
            heapq.heappop(pending)
        loop = future.get_loop()
        deadline = loop.time() + timeout
        heapq.heappush(pending, (deadline, next(self._numbers), timeout, future))
        if self._timer is None or deadline < self._timer.when():
            self._set_timer(loop)

    def close(self) -> None:
        """Watch no longer. All futures must be done."""
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._pending[0][0], call_late, loop, partial(self._expire, loop))

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        pending, now = self._pending, loop.time()
        while pending and (pending[0][0] <= now or pending[0][3].done()):
            _, _, timeout, future = heapq.heappop(pending)
            if not future.done():
                future.set_exception(StateUnavailable(f"no answer within {timeout:g} s"))
        if pending:
            self._set_timer(loop)
