"""An ``asyncio.Event`` that needs almost no memory until something waits for it."""

from __future__ import annotations

import asyncio
from typing import Literal


class LazyEvent(asyncio.Event):
    """An event of one waiter at most. asyncio's own has a queue of waiters, which takes 760 bytes."""

    def __init__(self) -> None:
        self._value = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._value = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> Literal[True]:
        """Wait until the event is set."""
        while not self._value:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return True
