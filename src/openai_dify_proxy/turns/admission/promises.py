"""Promises behind ``Retry-After``: a client rejected by this process that waits that long gets into the queue. Pure."""

from __future__ import annotations

import math
from collections import deque

from openai_dify_proxy.turns.admission.fair_queue import Line

MAX_SECONDS = 60
"""The longest ``Retry-After``: the official SDKs ignore longer ones."""

REDEEMABLE_SECONDS = 30.0
"""How long after its time a promise holds."""

FIRST_TURN_SECONDS = 10.0
"""The assumed duration of a turn before one has ended."""

_WEIGHT = 0.2
"""The weight of the latest turn in the average duration."""


class TurnDurations:
    """The average time that a turn holds its slot, in seconds."""

    def __init__(self) -> None:
        self._average: float | None = None

    def add(self, seconds: float) -> None:
        self._average = seconds if self._average is None else self._average + _WEIGHT * (seconds - self._average)

    def seconds_per_slot(self, limit: int) -> float:
        """Return the expected time until one of ``limit`` slots in use is free."""
        return (FIRST_TURN_SECONDS if self._average is None else self._average) / max(1, limit)


class Promises:
    """The places in the queue that rejected clients were promised, at most ``most`` at a time.

    Each promise is for a later time than the one before, since one client at a time gets a free place.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._due: dict[Line, deque[float]] = {}
        self._in_order: deque[tuple[float, Line]] = deque()
        self._latest = 0.0

    def __len__(self) -> int:
        return len(self._in_order)

    def make(self, line: Line, now: float, seconds: float) -> int:
        """Promise a place that is expected to be free ``seconds`` after the last promised one.

        Returns whole seconds from ``now``. With too many promises it is only an estimate.
        """
        self._forget_expired(now)
        due = max(now, self._latest) + seconds
        wait = min(MAX_SECONDS, max(1, math.ceil(due - now)))
        if len(self._in_order) < self._most:
            self._latest = min(due, now + MAX_SECONDS)
            self._due.setdefault(line, deque()).append(now + wait)
            self._in_order.append((now + wait, line))
        return wait

    def is_due(self, line: Line, now: float) -> bool:
        """Return whether a promise to ``line`` is due."""
        self._forget_expired(now)
        due = self._due.get(line)
        return due is not None and due[0] <= now

    def redeem(self, line: Line, now: float) -> bool:
        """Return whether a promise to ``line`` is due, and use it up."""
        if not self.is_due(line, now):
            return False
        self._in_order.remove((self._due[line][0], line))
        self._drop_first(line)
        return True

    def _forget_expired(self, now: float) -> None:
        while self._in_order and self._in_order[0][0] + REDEEMABLE_SECONDS < now:
            self._drop_first(self._in_order.popleft()[1])

    def _drop_first(self, line: Line) -> None:
        due = self._due[line]
        due.popleft()
        if not due:
            del self._due[line]
