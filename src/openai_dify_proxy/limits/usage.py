"""Reports on usage, for the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date

from openai_dify_proxy.errors import StateUnreachable
from openai_dify_proxy.limits.accounts import day_of
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.limits.reports import Group, UsageReport, days_between, read_report
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Operation


class UsageReports:
    """Reports on the usage in the state. ``now`` is a clock in seconds since the epoch."""

    def __init__(self, store: GuardedStore, ledger: Ledger, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ledger = ledger
        self._now = now

    def today(self) -> date:
        return date.fromisoformat(day_of(self._now()))

    async def report(self, first: date, last: date, by: Sequence[Group], *, caller: str | None = None) -> UsageReport:
        """Return the usage of a ``caller``, or of all. This process's own is complete, that of others a second old.

        Raises StateUnreachable.
        """
        await self._ledger.flush()
        return await read_report(self._run, days_between(first, last), by, caller=caller)

    async def _run(self, *operations: Operation) -> Sequence[bytes | None]:
        results = await self._store.run(*operations)
        if results is None:
            raise StateUnreachable("The usage cannot be read now. Try again in a moment.")
        return results
