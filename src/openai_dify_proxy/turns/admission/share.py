"""This process's share of the slots of one Dify: runs the operations of its ``LeaseTable`` on the state."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.turns.admission.leases import LEASE_SECONDS, Demand, LeaseTable

POLL_SECONDS = 1.0
"""How often a process with slots finds out whether others want some."""

ACQUIRE_SECONDS = 0.25
"""How often a process whose turns wait tries to acquire slots."""

SETTLED_SECONDS = 3 * POLL_SECONDS

IDLE_SECONDS = 60.0
"""How long after its last turn a process keeps its slots."""


class Turnstile(Protocol):
    """The user of a share."""

    @property
    def limit(self) -> int:
        """The limit of all processes together."""

    @property
    def finds_limit(self) -> bool:
        """Whether the limit is found, so that processes share what they found."""

    @property
    def in_use(self) -> int: ...

    @property
    def queued(self) -> int: ...

    @property
    def waiting_since(self) -> float | None:
        """When the turn that has waited longest began to wait, in seconds since the epoch."""

    def adopt(self, limit: int) -> None:
        """Use the limit that another process has found."""

    def admit(self) -> None:
        """Give slots to waiting turns: ``allowed`` may have changed."""


class Share:
    """Acquires slots for a ``Turnstile`` while it needs some, and renews and gives them up.

    ``allowed`` is how many slots the process may use. While the state is unreachable these are its own, and after the
    lifetime of a lease also a part of those that were free, which is equal for all processes. A process that has never
    reached the state takes an equal part of the limit for each of ``workers``. ``lease`` is the lifetime of a slot's
    lease without renewal, in seconds.
    """

    def __init__(
        self, store: GuardedStore, url: str, owner: bytes, *, workers: int, lease: float = LEASE_SECONDS
    ) -> None:
        self._store = store
        self._table = LeaseTable(url, owner, lease=lease)
        self._lease = lease
        self._renewal_seconds = lease / 3
        self._workers = workers
        self._user: Turnstile
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._admitting = False  # then this keeper itself calls ``require``
        self._tried = self._reached = self._reachable = False
        self._peak = 0
        self._synchronized_at = self._used_at = self._renewed_at = self._changed_at = 0.0
        self._reached_at = 0.0
        self._known_limit = self._first_limit = 0
        self.allowed = 0

    def connect(self, user: Turnstile) -> None:
        """Serve ``user``, once and before all else."""
        self._user = user
        self._known_limit = self._first_limit = user.limit

    @property
    def of_others(self) -> int:
        """The number of slots that other processes had when the state was last reached."""
        limit = self._user.limit
        return limit - self._table.entitled(limit)

    @property
    def settled(self) -> bool:
        """Whether other processes have had time to give up the slots that they do not use."""
        return not self._table.others or self._loop.time() - self._changed_at >= SETTLED_SECONDS

    def use(self) -> None:
        """Record that a turn has got a slot."""
        self._used_at = self._loop.time()
        self._peak = max(self._peak, self._user.in_use)

    def free(self) -> None:
        """Record that a turn has left its slot, which others may want."""
        if self._table.wanted is not None:
            self._wake.set()

    def require(self) -> None:
        """Acquire slots: a turn waits, or the limit has changed."""
        self._update()
        if self._admitting:
            return
        if self._keeper is None or self._keeper.done():
            self._keeper = self._loop.create_task(self._keep())
        else:
            self._wake.set()

    async def close(self) -> None:
        """Give up all slots."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._give_up_all()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            await self._synchronize()
            if not self._is_needed():
                await self._give_up_all()
                if not self._is_needed():
                    self._keeper = None
                    return
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_until_next()):
                    await self._wake.wait()
            if not self._has_free:
                await asyncio.sleep(self._synchronized_at + ACQUIRE_SECONDS - self._loop.time())

    @property
    def _has_free(self) -> bool:
        """Whether slots were free when the state was last reached."""
        limit = self._user.limit
        return self._reachable and self._table.entitled(limit) > self._table.allowed(limit)

    def _is_needed(self) -> bool:
        user = self._user
        return bool(user.in_use or user.queued) or self._loop.time() - self._used_at < IDLE_SECONDS

    def _seconds_until_next(self) -> float:
        if self._user.queued and self.allowed < self._user.limit:
            return ACQUIRE_SECONDS
        return min(POLL_SECONDS, self._renewal_seconds)

    async def _synchronize(self) -> None:
        user, table = self._user, self._table
        self._synchronized_at = now = self._loop.time()
        limit = user.limit
        publish = limit if user.finds_limit and limit != self._known_limit else None
        if user.queued or publish or table.wanted is not None or now - self._renewed_at >= self._renewal_seconds:
            operations = table.plan(Demand(user.in_use, self._wants(), user.waiting_since), limit, publish=publish)
            if now - self._renewed_at >= self._renewal_seconds:
                self._peak = user.in_use
            self._renewed_at = now
            self._update()  # it may give up slots
        else:
            operations = table.poll()
        results = await self._store.run(*operations)
        self._tried = True
        self._reachable = results is not None
        if results is not None:
            self._reached = True
            self._reached_at = self._loop.time()
            others = dict(table.others)
            if undo := table.read(results):
                await self._store.run(*undo)
            if table.others != others:
                self._changed_at = self._loop.time()
            if publish is not None:
                self._known_limit = publish
            elif user.limit == limit:  # else this process has just found another
                self._adopt(table.shared_limit)
        self._update()
        self._admitting = True
        try:
            user.admit()
        finally:
            self._admitting = False

    def _update(self) -> None:
        user, table = self._user, self._table
        limit = user.limit
        if self._reachable:
            self.allowed = table.allowed(limit, user.waiting_since)
        elif self._reached:
            self.allowed = table.allowed(limit)
            if self._loop.time() - self._reached_at >= self._lease:
                processes = max(self._workers, 1 + len({*table.others.values()}))
                self.allowed += max(0, table.entitled(limit) - self.allowed) // processes
        else:
            self.allowed = max(1, limit // self._workers) if self._tried else 0

    def _adopt(self, limit: int | None) -> None:
        """Use the limit in the state. If it has expired there, the next plan stores this process's again."""
        self._known_limit = self._first_limit if limit is None else limit
        if limit is not None and self._user.finds_limit:
            self._user.adopt(limit)

    def _wants(self) -> int:
        """Return how many slots to have: spare ones too, unless other processes want some."""
        user = self._user
        needed = user.in_use + user.queued
        if self._table.wanted is not None:
            return needed
        expected = max(needed, self._peak, 1)
        return expected + max(1, expected // 2)

    async def _give_up_all(self) -> None:
        operations = self._table.give_up_all()
        self._update()
        self._peak = 0
        if operations:
            await self._store.run(*operations)
