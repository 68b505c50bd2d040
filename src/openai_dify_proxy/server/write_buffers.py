"""The bytes that all connections together hold for clients that do not read them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class WriteBuffers:
    """Counts buffered bytes. Beyond ``limit``, clients that were slow once wait before they get more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def below_limit(self) -> bool:
        """Whether the total is at most ``limit``."""
        return self.total <= self.limit

    def add(self, size: int) -> None:
        """Count ``size`` bytes that a connection could not send at once."""
        self.total += size

    def remove(self, size: int) -> None:
        """Count ``size`` bytes as gone, and continue the connections that waited for that."""
        self.total -= size
        while self._waiting and self.below_limit:
            self._waiting.popleft()()

    def when_below_limit(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the total is at most ``limit``, at once if it is."""
        if self.below_limit:
            callback()
        else:
            self._waiting.append(callback)
