"""Locks across all processes that share the state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import Self

from openai_dify_proxy.errors import ConversationBusy
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add, Operation, Put, Take

LEASE_SECONDS = 30.0
"""How long a lock lives unless it is renewed, which is what a crash costs at most."""

PATIENCE = 30.0
STEP = 0.25
"""Seconds: how long a held lock is waited for, and between two attempts."""


class Lock:
    """The exclusive right to continue a conversation; ``key`` names its entry in the state.

    Use it as a context manager: what is still held at its exit is released. ``undo`` holds the operations that a
    release runs as well if Dify was never asked.
    """

    def __init__(self, store: GuardedStore, key: str) -> None:
        self.undo: tuple[Operation, ...] = ()
        self._store = store
        self._key = key
        self._token = token_bytes(16)
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if operations := await self.release_operations():
            await self._store.run(*self.undo, *operations)

    async def acquire(
        self,
        gone: Callable[[], bool],
        also: Sequence[Operation] = (),
        *,
        param: str | None = None,
        patience: float = PATIENCE,
    ) -> list[bytes | None] | None:
        """Wait until the lock is free and take it; return the results of ``also``, run in the same atomic step.

        Returns None without the lock if the state cannot be reached or ``gone`` says that the client left. Raises
        ConversationBusy about ``param`` after ``patience`` seconds.
        """
        while True:
            results = await self._store.run(Add(self._key, self._token, LEASE_SECONDS), *also)
            if results is None:
                return None
            if results[0] is None:
                self._renewal = asyncio.get_running_loop().create_task(self._renew())
                return results[1:]
            if patience <= 0:
                raise ConversationBusy(
                    "Another turn of this conversation is under way. Send this one when it has ended.",
                    param=param,
                    retry_after=1,
                )
            if gone():
                return None
            await asyncio.sleep(STEP)
            patience -= STEP

    def transfer(self) -> Lock:
        """Return a lock that holds what this one held; this one holds nothing any more."""
        heir = Lock(self._store, self._key)
        heir.undo = self.undo
        heir._token = self._token
        heir._renewal, self._renewal = self._renewal, None
        return heir

    async def release_operations(self) -> list[Operation]:
        """Return the operations that release the lock, to be run with others; none if it is not held."""
        if self._renewal is None:
            return []
        renewal, self._renewal = self._renewal, None
        lost = renewal.done()
        renewal.cancel()
        await asyncio.wait([renewal])
        return [] if lost else [Take(self._key)]

    async def _renew(self) -> None:
        """Renew the lease. End if another process holds the lock: the state lost it, or was unreachable for long."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            results = await self._store.run(Put(self._key, self._token, LEASE_SECONDS))
            if results is not None and results[0] not in (self._token, None):
                return
