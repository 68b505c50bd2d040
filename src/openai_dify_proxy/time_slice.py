"""Shares the event loop fairly when very many sockets have news at the same moment.

The loop calls the callbacks of all of them before anything else. A thousand streams that end at once would keep a
health check, and the other streams, waiting for a quarter of a second. So callbacks of one kind run for a slice of
time, and the others wait until the loop has been round once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from time import perf_counter

SLICE_SECONDS = 0.002

PAUSE_SECONDS = 0.002
"""The time after a slice in which only deferred callbacks run: others have had a part of the loop by its end."""

REST_SECONDS = 0.008
"""The longest time from a slice to the next while other work comes first."""


class TimeSlice:
    """The callbacks of one kind. They run in the order in which they arrived.

    uvloop does not show when an iteration begins. So a slice begins with a deferred callback, which waits for the next
    iteration, or with any callback some time after the last slice.
    """

    __slots__ = ("_context", "_end", "_gives_way", "_loop", "_next", "_running", "_scheduled", "_seconds", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = SLICE_SECONDS) -> None:
        self._loop = loop
        self._context = copy_context()  # not that of the request whose callback is the first to be deferred
        self._seconds = seconds
        self._end = 0.0
        self._next = 0.0
        self._gives_way = False
        self._running = False
        self._scheduled = False
        self._waiting: deque[Callable[[], object]] = deque()

    def has_time(self) -> bool:
        """Return whether a callback may run now, as a part of a deferred one always may. If not, defer it."""
        if self._running or self._waiting:
            return self._running
        now = perf_counter()
        if now >= self._next:
            self._begin(now)
        return now < self._end

    def defer(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in a later iteration of the loop."""
        self._waiting.append(callback)
        self._schedule()

    def charge(self, seconds: float) -> None:
        """Count work that a callback leaves to a task, which runs soon: about so many ``seconds``."""
        self._end -= seconds

    def give_way(self) -> None:
        """Let other work come first that the loop finds in many iterations, a little in each: callbacks wait longer."""
        self._gives_way = True

    def _begin(self, now: float) -> None:
        self._end = now + self._seconds
        self._next = self._end + PAUSE_SECONDS

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run, context=self._context)

    def _run(self) -> None:
        self._scheduled = False
        now = perf_counter()
        gives_way, self._gives_way = self._gives_way, False
        if gives_way and now < self._end + REST_SECONDS:
            self._schedule()
            return
        self._begin(now)
        self._running = True
        try:
            while self._waiting:
                self._call(self._waiting.popleft())
                if perf_counter() >= self._end:
                    break
        finally:
            self._running = False
            if self._waiting:
                self._schedule()

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - the others must run all the same
            self._loop.call_exception_handler({"message": "a deferred callback failed", "exception": error})
