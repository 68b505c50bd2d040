"""Locks shared by all processes with the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_bytes
from typing import Self

from openai_dify_proxy.errors import ConversationBusy
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add, Get, Operation, Put, Take

LEASE_SECONDS = 30.0
"""The lifetime of a lock without renewal, for example after a crash."""

LOCK_TIMEOUT = 30.0
"""How long a turn waits for a lock, in seconds."""

RETRY_SECONDS = 0.25
"""Time between two attempts to take a lock."""


class ConversationTaken(Exception):
    """Another turn holds the conversation.

    ``is_free`` reads the entry ``key`` in the state, and returns whether the turn may try again. ``error`` is for a
    turn that has waited in vain; None if it then continues without waiting.
    """

    def __init__(self, key: str, is_free: Callable[[], Awaitable[bool]], error: ConversationBusy | None) -> None:
        super().__init__(key)
        self.key = key
        self.is_free = is_free
        self.error = error


class Lock:
    """The exclusive right to continue a conversation; ``key`` names its entry in the state, ``owner`` its caller.

    As a context manager it releases the lock at its exit if it is still held. ``undo`` holds operations that the
    release also runs if no request was sent to Dify.
    """

    def __init__(self, store: GuardedStore, key: str, owner: str) -> None:
        self.undo: tuple[Operation, ...] = ()
        self._store = store
        self._key = key
        self._owner = owner
        self._token = token_bytes(16)
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if operations := await self.release_operations():
            await self._store.run(*self.undo, *operations)

    async def try_acquire(
        self, also: Sequence[Operation] = (), *, param: str | None = None
    ) -> list[bytes | None] | None:
        """Take the lock if it is free. Return the results of ``also``, which runs in the same atomic step.

        Returns None without the lock if the state is unreachable. Raises ConversationTaken, whose error has ``param``.
        """
        results = await self._store.run(Add(self._key, self._token, LEASE_SECONDS, self._owner, deferred=True), *also)
        if results is None:
            return None
        if results[0] is not None:
            raise ConversationTaken(self._key, self.is_free, _busy(param))
        self._renewal = asyncio.get_running_loop().create_task(self._renew())
        return results[1:]

    async def acquire(self, *, param: str | None = None, timeout: float = LOCK_TIMEOUT) -> None:
        """Wait until the lock is free and take it, outside turns. Do nothing if the state is unreachable.

        Raises ConversationBusy with ``param`` after ``timeout`` seconds.
        """
        while True:
            try:
                await self.try_acquire(param=param)
            except ConversationTaken:
                if timeout <= 0:
                    raise _busy(param) from None
                await asyncio.sleep(RETRY_SECONDS)
                timeout -= RETRY_SECONDS
            else:
                return

    async def is_free(self) -> bool:
        """Return whether the lock was free, or the state could not be reached."""
        results = await self._store.run(Get(self._key))
        return results is None or results[0] is None

    def transfer(self) -> Lock:
        """Return a new lock that takes this one over; this one is no longer held."""
        successor = Lock(self._store, self._key, self._owner)
        successor.undo = self.undo
        successor._token = self._token
        successor._renewal, self._renewal = self._renewal, None
        return successor

    async def release_operations(self) -> list[Operation]:
        """Return the operations that release the lock, for the caller to run; none if it is not held."""
        if self._renewal is None:
            return []
        renewal, self._renewal = self._renewal, None
        lost = renewal.done()
        renewal.cancel()
        await asyncio.wait([renewal])
        return [] if lost else [Take(self._key, self._owner)]

    async def _renew(self) -> None:
        """Renew the lease until another process holds the lock: the state lost it, or was unreachable for too long."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            results = await self._store.run(Put(self._key, self._token, LEASE_SECONDS, self._owner, deferred=True))
            if results is not None and results[0] not in (self._token, None):
                return


def _busy(param: str | None) -> ConversationBusy:
    return ConversationBusy(
        "Another turn of this conversation is running. Send the request again when it has ended.",
        param=param,
        retry_after=1,
    )
