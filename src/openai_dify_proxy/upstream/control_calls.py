"""The connections for control calls: stop calls, answers to forms, and the calls that read the profile of an app.

Turns and all other calls to Dify use the slots of ``turns/admission``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

CONTROL_CONNECTIONS = 2
"""Control calls that a process makes to one Dify at the same time, in addition to the admitted turns."""


class ControlCalls:
    """Limits the control calls to each Dify if ``limited`` returns true for its URL. Stop calls come first."""

    def __init__(self, limited: Callable[[str], bool]) -> None:
        self._limited = limited
        self._lanes: dict[str, _ControlLane] = {}

    @asynccontextmanager
    async def connection(self, url: str, *, first: bool = False) -> AsyncIterator[None]:
        """Wait until the block may use a connection to the Dify at ``url``; ``first`` before all others."""
        lane = self._lanes.get(url)
        if lane is None:
            lane = self._lanes[url] = _ControlLane(CONTROL_CONNECTIONS if self._limited(url) else None)
        await lane.enter(first=first)
        try:
            yield
        finally:
            lane.leave()


class _ControlLane:
    """The connections of one Dify; ``free`` is None without a limit."""

    def __init__(self, free: int | None) -> None:
        self._free = free
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    async def enter(self, *, first: bool) -> None:
        if self._free is None:
            return
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it has just got a connection
                self.leave()
            raise

    def leave(self) -> None:
        if self._free is None:
            return
        for waiting in (self._first, self._others):
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self._free += 1
