"""Books the usage of turns: for reports, and as the totals that budgets are checked against.

Totals for budgets and limits are written at once; turns that end during a write share the next one. All other usage is
added up in this process and written once a second, so that it costs almost nothing per turn; a killed process loses the
usage of its last second. While the state is unavailable, everything is added up until it is back. A write whose answer
got lost is written again, so it may count twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog
from msgspec import Struct, field

from openai_dify_proxy.keys.limits import NO_LIMITS, KeyLimits
from openai_dify_proxy.limits.accounts import (
    DAY,
    DAY_TTL,
    MONTH_TTL,
    Account,
    Amounts,
    Tally,
    Work,
    caller_name,
    callers_key,
    day_name,
    spent_key,
    totals,
    usage_key,
)
from openai_dify_proxy.limits.buckets import tokens_bucket
from openai_dify_proxy.state.counters import read_counts
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Count, Draw, Operation

FLUSH_SECONDS = 1.0
"""How often usage is written."""

WRITTEN_AT_ONCE = 100
"""Counts in one run of the state."""

BATCH = 64
"""Turns that are added to the tallies at once: the same code takes less time when it runs many times in a row."""

MAX_SEEN = 20_000
"""Totals that are remembered for an outage of the state."""

MAX_LOCAL = 20_000
"""Buckets of this process, for an outage of the state."""

MAX_APPS = 200
"""Names of apps and models per caller, day and process; clients choose those of image models."""

MAX_APP_CHARACTERS = 100
OTHER_APPS = "(other)"

log = structlog.get_logger(__name__)


class _Unwritten(Struct):
    ttl: float
    amounts: dict[str, int] = field(default_factory=dict)

    def add(self, amounts: Iterable[tuple[str, int]]) -> None:
        for name, amount in amounts:
            self.amounts[name] = self.amounts.get(name, 0) + amount


class _Urgent(Struct):
    """The data that limits need: counters, tokens by caller with their limit per minute, and the futures that wait for
    it."""

    counts: dict[str, _Unwritten] = field(default_factory=dict)
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def add(self, key: str, ttl: float, amounts: Amounts) -> None:
        entry = self.counts.get(key)
        if entry is None:
            entry = self.counts[key] = _Unwritten(ttl)
        entry.add(amounts)

    def draw(self, caller: str, limit: int, used: int) -> None:
        self.tokens[caller] = limit, self.tokens.get(caller, (0, 0))[1] + used

    def operations(self) -> list[Operation]:
        return [
            *(Count(key, entry.ttl, tuple(entry.amounts.items())) for key, entry in self.counts.items()),
            *(tokens_bucket(caller, limit, used) for caller, (limit, used) in self.tokens.items()),
        ]


class _Place(NamedTuple):
    """Where turns of one day count. ``daily`` and ``monthly`` say whether their totals are written at once."""

    caller: str
    app: str
    outcome: str
    started: bool
    daily: bool
    monthly: bool


class Ledger:
    """Books the turns of one process. Usage is stored for ``days``; ``now`` is a clock in seconds since the epoch.

    ``local`` has the buckets of this process, for while the state is unavailable.
    """

    def __init__(self, store: GuardedStore, *, days: int, now: Callable[[], float] = time.time) -> None:
        self.local = MemoryStore(max_entries=MAX_LOCAL)
        self._store = store
        self._usage_ttl = days * DAY
        self._now = now
        self._unwritten: dict[str, _Unwritten] = {}
        self._seen: OrderedDict[str, bytes | None] = OrderedDict()
        self._day = 0
        self._booked: list[tuple[Account, Work, KeyLimits]] = []
        """Turns of the day that no tally has yet."""
        self._tallies: dict[_Place, Tally] = {}
        self._callers: set[str] = set()
        self._apps: dict[str, set[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._urgent = _Urgent()
        self._writing: asyncio.Task[None] | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._flushing = asyncio.Lock()

    def book(self, account: Account, work: Work, limits: KeyLimits = NO_LIMITS) -> asyncio.Future[None] | None:
        """Book a turn that has ended. Return a future that is done once the data that limits need is written, if there
        is any.

        Cancelling or ignoring the future does not stop the write.
        """
        day = int(self._now() // DAY)
        if day != self._day:
            self._begin_day(day)
        self._booked.append((account, work, limits))
        if self._timer is None:
            self._set_timer()
        if len(self._booked) >= BATCH:
            self._add_booked()
        if limits is NO_LIMITS or not self._add_urgent(account.id, work, limits):
            return None
        if self._writing is None:
            self._writing = self._start_writing()
        written = asyncio.get_running_loop().create_future()
        self._urgent.waiting.append(written)
        return written

    def _add_urgent(self, caller: str, work: Work, limits: KeyLimits) -> bool:
        """Add the data that limits need at once. Return False if there is none."""
        amounts = totals(work) if limits.daily is not None or limits.monthly is not None else ()
        if amounts:
            day = day_name(self._day)
            if limits.daily is not None:
                self._urgent.add(spent_key(caller, day), DAY_TTL, amounts)
            if limits.monthly is not None:
                self._urgent.add(spent_key(caller, day[:7]), MONTH_TTL, amounts)
        used = 0 if work.usage is None else work.usage.total_tokens
        if limits.tokens_per_minute is None or used <= 0:
            return bool(amounts)
        self._urgent.draw(caller, limits.tokens_per_minute, used)
        return True

    async def _write_urgent(self) -> None:
        """Write the urgent data. Data that becomes urgent meanwhile is written by another task."""
        urgent, self._urgent = self._urgent, _Urgent()
        try:
            operations = urgent.operations()
            for start in range(0, len(operations), WRITTEN_AT_ONCE):
                await self._write(operations[start : start + WRITTEN_AT_ONCE])
        finally:
            for waiter in urgent.waiting:
                if not waiter.done():  # else it was cancelled
                    waiter.set_result(None)
            self._writing = self._start_writing() if self._urgent.waiting else None

    def _start_writing(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._write_urgent(), name="booking")

    def note(self, key: str, result: bytes | None) -> None:
        """Remember the totals that the state holds: the result of a ``Count``."""
        seen = self._seen
        seen[key] = result
        seen.move_to_end(key)
        if len(seen) > MAX_SEEN:
            seen.popitem(last=False)

    def known(self, key: str) -> Mapping[str, int]:
        """Return the totals as far as this process knows them: those it has seen, and what is not written yet."""
        sums = read_counts(self._seen.get(key))
        if (unwritten := self._unwritten.get(key)) is not None:
            for name, amount in unwritten.amounts.items():
                sums[name] = sums.get(name, 0) + amount
        return sums

    async def flush(self) -> None:
        """Write all that is not written yet."""
        for _ in range(2):  # the write that runs, and the next one, which has all that is urgent now
            if self._writing is not None:
                await asyncio.wait([self._writing])
        async with self._flushing:
            self._count_tallies()
            unwritten, self._unwritten = self._unwritten, {}
            counts = [Count(key, entry.ttl, tuple(entry.amounts.items())) for key, entry in unwritten.items()]
            for start in range(0, len(counts), WRITTEN_AT_ONCE):
                await self._write(counts[start : start + WRITTEN_AT_ONCE])

    async def close(self) -> None:
        """Write all that is not written yet. Data that cannot be written is lost."""
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._unwritten:
            log.warning("usage_lost", counters=len(self._unwritten))

    def _add_booked(self) -> None:
        """Add the booked turns to their tallies."""
        booked, self._booked = self._booked, []
        for account, work, limits in booked:
            daily, monthly = limits.daily is not None, limits.monthly is not None
            place = _Place(account.id, work.app, work.outcome, work.started, daily, monthly)
            tally = self._tallies.get(place)
            if tally is None:
                tally = self._open_tally(account, place)
            tally.add(work)

    def _begin_day(self, day: int) -> None:
        self._count_tallies()
        self._day = day
        self._callers.clear()
        self._apps.clear()

    def _open_tally(self, account: Account, place: _Place) -> Tally:
        if account.id not in self._callers:
            self._callers.add(account.id)
            self._add(callers_key(day_name(self._day)), self._usage_ttl, ((caller_name(account), 1),))
        names = self._apps.setdefault(account.id, set())
        app = place.app[:MAX_APP_CHARACTERS]
        if app not in names and len(names) >= MAX_APPS:
            app = OTHER_APPS
        names.add(app)
        return self._tallies.setdefault(place._replace(app=app), Tally())

    def _count_tallies(self) -> None:
        """Add the tallies of all booked turns to the counters that are not written yet."""
        self._add_booked()
        tallies, self._tallies = self._tallies, {}
        day = day_name(self._day)
        for place, tally in tallies.items():
            self._add(usage_key(place.caller, day), self._usage_ttl, tally.details(place.app, place.outcome))
            amounts = tally.totals(started=place.started)
            if not place.daily:
                self._add(spent_key(place.caller, day), DAY_TTL, amounts)
            if not place.monthly:
                self._add(spent_key(place.caller, day[:7]), MONTH_TTL, amounts)

    def _add(self, key: str, ttl: float, amounts: Amounts) -> None:
        if not amounts:
            return
        entry = self._unwritten.get(key)
        if entry is None:
            entry = self._unwritten[key] = _Unwritten(ttl)
        entry.add(amounts)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None  # a further booking sets it again
        task = asyncio.get_running_loop().create_task(self.flush(), name="usage")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _write(self, operations: Sequence[Operation]) -> None:
        """Run ``Count`` and ``Draw`` operations; keep them in this process if the state is unavailable."""
        results = await self._store.run(*operations)
        for number, operation in enumerate(operations):
            if isinstance(operation, Draw) and results is None:
                await self.local.run(operation)
            elif isinstance(operation, Count) and results is None:
                self._add(operation.key, operation.ttl, operation.amounts)
            elif isinstance(operation, Count) and results is not None and operation.key in self._seen:
                self.note(operation.key, results[number])
