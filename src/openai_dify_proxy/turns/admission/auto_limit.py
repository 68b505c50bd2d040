"""The control law of ``DIFY_MAX_CONCURRENT=auto``. Pure: times are arguments, in seconds of one clock."""

from __future__ import annotations

from collections.abc import Sequence

from openai_dify_proxy.settings.values import MAX_CONCURRENT
from openai_dify_proxy.upstream.control_calls import CONTROL_CONNECTIONS

LOWEST_LIMIT = 8
"""The smallest Dify serves ten connections; two of them are for control calls."""

PROBES = CONTROL_CONNECTIONS + 1
"""Connections that Dify must serve beside a full limit before the limit grows by one."""

LATE_SECONDS = 3.0
"""A request without a response head for this long waits for a connection of Dify."""

PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 600.0
"""The pause in growth after Dify was found full; it doubles each time."""


class AutoLimit:
    """Follows how many turns a Dify serves at once, and leaves ``CONTROL_CONNECTIONS`` of its connections free.

    A full Dify does not answer at all, so its size shows only in answers that do not come. Turns must not find it out:
    each that waits in Dify holds up stop calls until another turn ends. Therefore the limit grows only after
    ``PROBES`` small requests were answered beside a full limit, at the same time and on connections of their own. It
    falls if probes are not answered, or if the head of a turn is late.
    """

    def __init__(self) -> None:
        self.limit = LOWEST_LIMIT
        self._grow_after = 0.0
        self._pause = PAUSE_SECONDS
        self._lowered_at = float("-inf")

    def observe(self, now: float, sent_at: Sequence[float], *, answering: int, waiting: int) -> bool:
        """Lower the limit if response heads are late. Return whether to probe now.

        ``sent_at`` holds the times of the requests without a response head, ``answering`` counts the turns that Dify is
        answering, and ``waiting`` those that wait for a slot.
        """
        # A head that was missing when the limit fell last must not lower it again.
        late = sum(1 for sent in sent_at if now - sent >= LATE_SECONDS and sent > self._lowered_at)
        if late:
            self._lowered_at = now
            self._set(answering + len(sent_at) - late - CONTROL_CONNECTIONS, at_most=self.limit)
            self._pause_growth(now)
            return False
        return waiting > 0 and self.limit <= answering and self.limit < MAX_CONCURRENT and now >= self._grow_after

    def probed(self, now: float, answered: int) -> None:
        """Adjust the limit after ``answered`` of ``PROBES`` requests got their answer in time."""
        self._set(self.limit + answered - CONTROL_CONNECTIONS, at_most=self.limit + 1)
        if answered > CONTROL_CONNECTIONS:
            self._pause = PAUSE_SECONDS
        else:
            self._pause_growth(now)

    def adopt(self, limit: int) -> None:
        """Use the limit that another process has found."""
        self._set(limit, at_most=limit)

    def _set(self, limit: int, *, at_most: int) -> None:
        self.limit = max(LOWEST_LIMIT, min(limit, at_most, MAX_CONCURRENT))

    def _pause_growth(self, now: float) -> None:
        self._grow_after = now + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
