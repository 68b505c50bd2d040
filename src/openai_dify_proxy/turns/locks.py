"""One at a time, across all processes that share the state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from secrets import token_bytes

from openai_dify_proxy.errors import ConversationBusy
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add, Operation, Put, Take

LEASE_SECONDS = 30.0
"""How long a lock lives unless it is renewed: what a crash costs at most."""

PATIENCE = 30.0
STEP = 0.25
"""Seconds for which somebody else's lock is waited for, and between two looks."""


class Lock:
    """The right to be the only one who goes on with a conversation. ``key`` is the entry's that stands for it.

    ``undo`` is what is to be done as well if it is given back before Dify was asked.
    """

    def __init__(self, store: GuardedStore, key: str) -> None:
        self.undo: tuple[Operation, ...] = ()
        self._store = store
        self._key = key
        self._token = token_bytes(16)
        self._renewal: asyncio.Task[None] | None = None

    async def acquire(
        self,
        gone: Callable[[], bool],
        also: Sequence[Operation] = (),
        *,
        param: str | None = None,
        patience: float = PATIENCE,
    ) -> list[bytes | None] | None:
        """Waits until nobody holds it; returns what ``also`` gave in the moment in which it was got.

        None where the state cannot be reached, or ``gone`` says that nobody waits any more. Raises ConversationBusy
        about ``param`` after ``patience`` seconds.
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

    async def releasing(self) -> list[Operation]:
        """What gives it back, to be done together with other things; nothing if it was not got."""
        if self._renewal is None:
            return []
        renewal, self._renewal = self._renewal, None
        lost = renewal.done()
        renewal.cancel()
        await asyncio.wait([renewal])
        return [] if lost else [Take(self._key)]

    async def release(self) -> None:
        """Gives it back before Dify was asked."""
        if operations := await self.releasing():
            await self._store.run(*self.undo, *operations)

    async def _renew(self) -> None:
        """Ends if somebody else holds it by now: the state forgot it, or could not be reached for too long."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            results = await self._store.run(Put(self._key, self._token, LEASE_SECONDS))
            if results is not None and results[0] not in (self._token, None):
                return
