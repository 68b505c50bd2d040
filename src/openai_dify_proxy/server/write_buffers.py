"""The bytes that all connections together hold for clients that do not read them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class WriteBuffers:
    """Counts buffered bytes. Beyond ``limit``, clients that were slow once wait before they get more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        """The buffered bytes, and those reserved for connections that have just continued."""
        self._waiting: OrderedDict[Callable[[], object], None] = OrderedDict()
        self._continuing = False

    @property
    def below_limit(self) -> bool:
        """Whether the total is at most ``limit``."""
        return self.total <= self.limit

    def add(self, size: int) -> None:
        """Count ``size`` bytes that a connection could not send at once, or may soon write."""
        self.total += size

    def remove(self, size: int) -> None:
        """Count ``size`` bytes as gone, and continue the connections that waited for that."""
        self.total -= size
        if self._continuing:
            return  # a connection that continued has written all at once; the loop below continues the next
        self._continuing = True
        try:
            while self._waiting and self.below_limit:
                callback, _ = self._waiting.popitem(last=False)
                callback()
        finally:
            self._continuing = False

    def when_below_limit(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the total is at most ``limit``, at once if it is."""
        if self.below_limit:
            callback()
        else:
            self._waiting[callback] = None

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call ``callback`` any more."""
        self._waiting.pop(callback, None)
