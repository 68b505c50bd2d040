"""Timeouts that share one timer of the event loop.

Each turn has a timeout that almost never ends, and each stream one more. A timer of the loop takes 700 bytes and two
microseconds; an alarm takes a tenth of the memory and a third of the time. It rings a little late: alarms of one tick
ring together, and those that are far away share long ticks, so that a cancelled one leaves next to nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from heapq import heappop, heappush

from openai_dify_proxy.entity import Entity

TICK = 0.001
"""Seconds; an alarm rings at most one tick late."""

FAR = 5.0
LONG_TICKS = 250
"""An alarm that is ``FAR`` seconds away rings at most so many ticks late."""


class Alarm(Entity):
    """A timeout that was set."""

    tick: int
    callback: Callable[[], object] | None


class Alarms:
    """The alarms of one event loop, by the tick at which they ring."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._alarms: dict[int, set[Alarm]] = {}
        self._ticks: list[int] = []  # a heap
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0

    def set(self, when: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` at the loop's time ``when``, or shortly after. It must be quick, and raise nothing."""
        tick = int(when / TICK) + 1
        if when - self._loop.time() > FAR:
            tick += -tick % LONG_TICKS
        alarm = Alarm(tick, callback)
        others = self._alarms.get(tick)
        if others is not None:
            others.add(alarm)
            return alarm
        self._alarms[tick] = {alarm}
        heappush(self._ticks, tick)
        if self._timer is None or tick < self._timer_at:
            self._set_timer(tick)
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Do not call the alarm's callback; does nothing if it was called."""
        alarm.callback = None  # alarms of one tick ring one after the other: this one may be next
        others = self._alarms.get(alarm.tick)
        if others is not None:
            others.discard(alarm)

    def _set_timer(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(tick * TICK, self._ring)
        self._timer_at = tick

    def _ring(self) -> None:
        self._timer = None
        now = int(self._loop.time() / TICK + 0.1)  # uvloop rounds to milliseconds
        while self._ticks and self._ticks[0] <= now:
            for alarm in self._alarms.pop(heappop(self._ticks)):
                callback = alarm.callback
                if callback is None:
                    continue
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - the others must ring all the same
                    self._loop.call_exception_handler({"message": "an alarm's callback failed", "exception": error})
        if self._ticks:
            self._set_timer(self._ticks[0])


@lru_cache(maxsize=8)
def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """Return the alarms of an event loop: the same ones again, as a process has one loop, and a few in tests."""
    return Alarms(loop)
