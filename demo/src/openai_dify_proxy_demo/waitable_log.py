"""The base class of the demo servers' logs, which lets other threads wait for a change."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self


class WaitableLog(ABC):
    """A log that one thread writes and other threads wait on. Every method is thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.open_requests = 0
        """The number of requests in progress."""

    def change(self, update: Callable[[], object]) -> None:
        """Run `update` under the lock, and wake the waiting threads."""
        with self._changed:
            update()
            self._changed.notify_all()

    def wait(self, predicate: Callable[[Self], object], timeout: float = 60.0) -> None:
        """Block until `predicate(log)` is true. Raise TimeoutError with the latest entries after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(
                    f"The condition was not met within {timeout} s. "
                    f"Latest entries: {self.summary()}, open requests: {self.open_requests}"
                )

    async def wait_for(self, predicate: Callable[[Self], object], timeout: float = 60.0) -> None:
        """Wait like `wait`, without blocking the event loop."""
        await asyncio.to_thread(self.wait, predicate, timeout)

    @abstractmethod
    def summary(self) -> str:
        """Return the latest entries, for the message of a timeout."""
