"""The memory for the request bodies of one process.

A body reserves twice its length before it is read: for its bytes, and for the message decoded from them. So clients
that send only a part of their bodies cannot fill the memory. A body that finds no room waits, in order of
arrival. Bodies up to ``SMALL_BODY`` have a third of the memory to themselves, so that large ones do not hold up
ordinary chats; tiny ones never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque

from openai_dify_proxy.errors import ServerBusy

MEMORY_PER_BYTE = 2

TINY_BODY = 16 * 1024
SMALL_BODY = 1024 * 1024

MAX_WAITING = 64
"""Bodies of each kind that may wait: the connection of each holds its received bytes."""

RETRY_SECONDS = 5


class Pool:
    """A number of bytes that requests share. ``free`` is negative while tiny bodies exceed it."""

    def __init__(self, size: int, wait: float) -> None:
        self.free = size
        self._wait = wait
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, amount: int) -> None:
        """Take bytes at once, even if there are none left."""
        self.free -= amount

    def take_free(self, amount: int) -> None:
        """Take bytes at once. Raises ServerBusy if there are not enough."""
        if amount > self.free or self._waiting:
            raise _busy()
        self.free -= amount

    async def acquire(self, amount: int) -> None:
        """Take bytes as soon as there are enough. Raises ServerBusy after ``wait`` seconds."""
        if amount <= self.free and not self._waiting:
            self.free -= amount
            return
        if len(self._waiting) >= MAX_WAITING:
            raise _busy()
        entry = (amount, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._wait):
                await entry[1]
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._grant()
            else:  # granted in the last moment
                self.release(amount)
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise

    def release(self, amount: int) -> None:
        self.free += amount
        self._grant()

    def _grant(self) -> None:
        """Serve the requests that wait, the oldest first: a large one is not overtaken by smaller ones."""
        while self._waiting and self._waiting[0][0] <= self.free:
            amount, granted = self._waiting.popleft()
            self.free -= amount
            if not granted.done():
                granted.set_result(None)


class BodyBudget:
    """The memory for all request bodies, ``size`` in bytes. ``wait`` is how long a body waits for it, in seconds."""

    def __init__(self, size: int, wait: float) -> None:
        self.small = Pool(size // 3, wait)
        self.large = Pool(size - size // 3, wait)


class Reservation:
    """The memory of one body. ``release`` returns it."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._pool = budget.small
        self._amount = 0
        self._held = 0

    async def cover(self, length: int) -> None:
        """Reserve memory for ``length`` bytes in total, no less than before. Raises ServerBusy.

        A large body does not wait for more: several that hold memory would wait for each other.
        """
        amount = length * MEMORY_PER_BYTE
        if length <= TINY_BODY:
            self._pool.take(amount - self._amount)
        elif length <= SMALL_BODY:
            await self._pool.acquire(amount - self._amount)
        elif self._pool is self._budget.large:
            self._pool.take_free(amount - self._amount)
        else:
            await self._budget.large.acquire(amount)
            self.drop()
            self._pool = self._budget.large
        self._amount = amount

    def hold(self, length: int) -> None:
        """Keep up to ``length`` bytes reserved when the rest is released, until ``drop``."""
        self._held = length

    def release(self) -> None:
        """Return the memory, except what is held. Idempotent."""
        kept = min(self._held, self._amount)
        if self._amount > kept:
            self._pool.release(self._amount - kept)
            self._amount = kept

    def drop(self) -> None:
        """Return all memory. Idempotent."""
        self._held = 0
        self.release()


def _busy() -> ServerBusy:
    return ServerBusy(
        "The server has no memory left for request bodies of this size. Try again in a moment.",
        retry_after=RETRY_SECONDS,
    )
