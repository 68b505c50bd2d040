"""A record that changes in one thread, and other threads that wait for its changes."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self


class Watched(ABC):
    """Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.open_requests = 0
        """Requests that are being answered now."""

    def change(self, what: Callable[[], object]) -> None:
        """Make a change and wake the waiting threads."""
        with self._changed:
            what()
            self._changed.notify_all()

    def wait(self, predicate: Callable[[Self], object], timeout: float = 60.0) -> None:
        """Block until `predicate(log)` is true; raise TimeoutError with the latest entries after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(f"not seen within {timeout} s; {self.summary()}, open {self.open_requests}")

    async def wait_for(self, predicate: Callable[[Self], object], timeout: float = 60.0) -> None:
        """Wait like `wait`, in a coroutine of any event loop."""
        await asyncio.to_thread(self.wait, predicate, timeout)

    @abstractmethod
    def summary(self) -> str:
        """The latest entries, for the message of a wait that fails."""
