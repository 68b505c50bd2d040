"""An event loop whose time a test can move, so that no test waits for a timeout or races with one."""

from __future__ import annotations

import asyncio
import threading

from tests.limits import PATIENCE


class MovableLoop(asyncio.SelectorEventLoop):
    """The event loop of a server in another thread. Its time runs as usual, and ``move`` moves it forward.

    Timeouts that are long for a test's steps and short compared with the moves neither end early on a busy machine nor
    take time on an idle one.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._ahead

    def move(self, seconds: float) -> None:
        """Move the time forward; return once all timers that are then due have run. Called in the test's thread."""
        done = threading.Event()

        def forward() -> None:
            self._ahead += seconds
            self.call_later(0, done.set)  # after all timers that are due before

        self.call_soon_threadsafe(forward)
        assert done.wait(PATIENCE), "the event loop did not move"
