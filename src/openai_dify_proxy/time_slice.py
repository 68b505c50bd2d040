"""Shares the event loop fairly when very many sockets have news at the same moment.

The loop calls the callbacks of all of them before anything else. A thousand streams that end at once would keep a
health check, and the streams that go on, waiting for a quarter of a second. So callbacks of one kind run for a slice of
time, and the others wait until the loop has been round once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

SLICE_SECONDS = 0.002


class TimeSlice:
    """The callbacks of one kind. They run in the order in which they arrived.

    Nothing tells where an iteration of the loop begins. So a slice begins with a callback that was deferred, of which
    there is one per slice even if there is time enough.
    """

    __slots__ = ("_end", "_loop", "_seconds", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = SLICE_SECONDS) -> None:
        self._loop = loop
        self._seconds = seconds
        self._end = 0.0
        self._waiting: deque[Callable[[], object]] = deque()

    def has_time(self) -> bool:
        """Return whether a callback may run now. If not, it has to be deferred."""
        return not self._waiting and perf_counter() < self._end

    def defer(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in a later iteration of the loop."""
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append(callback)

    def charge(self, seconds: float) -> None:
        """Count work that a callback leaves to a task, which runs soon: about so many ``seconds``."""
        self._end -= seconds

    def _run(self) -> None:
        self._end = perf_counter() + self._seconds
        while self._waiting:
            callback = self._waiting.popleft()
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - the others must run all the same
                self._loop.call_exception_handler({"message": "a deferred callback failed", "exception": error})
            if perf_counter() >= self._end:
                break
        if self._waiting:
            self._loop.call_soon(self._run)
