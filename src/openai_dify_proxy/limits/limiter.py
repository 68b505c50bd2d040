"""Checks requests against the limits of their keys, by one run of the state.

While the state is unavailable, each process applies the limits by itself: its own buckets, and the last totals that it
read plus its own turns since then. So an outage neither stops the callers nor lifts their limits, and no request waits
longer for the state than any other does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from openai_dify_proxy.keys.limits import KeyLimits
from openai_dify_proxy.limits.accounts import DAY, DAY_TTL, MONTH_TTL, day_name, spent_key
from openai_dify_proxy.limits.buckets import requests_bucket, tokens_bucket
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.limits.verdicts import Reading, Verdict, judge
from openai_dify_proxy.state.buckets import read_level
from openai_dify_proxy.state.counters import read_counts
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Count, Draw

MAX_PLANS = 10_000
"""Callers whose operations are remembered."""


def has_limits(limits: KeyLimits) -> bool:
    """Return whether requests have to be checked. Concurrent turns and priorities are checked at admission."""
    rates = limits.requests_per_minute, limits.tokens_per_minute
    return any(limit is not None for limit in (*rates, limits.daily, limits.monthly))


class _Plan(Struct, frozen=True):
    """The operations that check a request of one caller on one day."""

    limits: KeyLimits
    day: int
    draws: tuple[Draw, ...]
    counts: tuple[Count, ...]


class Limiter:
    """Checks the requests of callers. ``now`` is a clock in seconds since the epoch."""

    def __init__(self, store: GuardedStore, ledger: Ledger, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ledger = ledger
        self._now = now
        self._plans: dict[str, _Plan] = {}

    async def check(self, caller: str, limits: KeyLimits) -> Verdict:
        """Count a request of ``caller``, and return whether it keeps within the limits of its key."""
        now = self._now()
        plan = self._plan(caller, limits, int(now // DAY))
        results = await self._store.run(*plan.draws, *plan.counts)
        if results is None:
            levels = await self._ledger.local.run(*plan.draws)
            totals = [self._ledger.known(operation.key) for operation in plan.counts]
        else:
            levels, counts = results[: len(plan.draws)], results[len(plan.draws) :]
            totals = [read_counts(result) for result in counts]
            for operation, result in zip(plan.counts, counts, strict=True):
                self._ledger.note(operation.key, result)
        return judge(limits, _reading(limits, levels, totals), now)

    def _plan(self, caller: str, limits: KeyLimits, day: int) -> _Plan:
        plan = self._plans.get(caller)
        if plan is None or plan.limits is not limits or plan.day != day:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[caller] = _Plan(limits, day, _draws(caller, limits), _counts(caller, limits, day))
        return plan


def _reading(limits: KeyLimits, levels: Sequence[bytes | None], totals: Sequence[Mapping[str, int]]) -> Reading:
    """Return the results in the order of ``_draws`` and ``_counts`` by their names."""
    next_level, next_totals = iter(levels), iter(totals)
    return Reading(
        None if limits.requests_per_minute is None else read_level(next(next_level)),
        None if limits.tokens_per_minute is None else read_level(next(next_level)),
        {} if limits.daily is None else next(next_totals),
        {} if limits.monthly is None else next(next_totals),
    )


def _draws(caller: str, limits: KeyLimits) -> tuple[Draw, ...]:
    draws = []
    if limits.requests_per_minute is not None:
        draws.append(requests_bucket(caller, limits.requests_per_minute))
    if limits.tokens_per_minute is not None:
        draws.append(tokens_bucket(caller, limits.tokens_per_minute))
    return tuple(draws)


def _counts(caller: str, limits: KeyLimits, number: int) -> tuple[Count, ...]:
    day = day_name(number)
    counts = []
    if limits.daily is not None:
        counts.append(Count(spent_key(caller, day), DAY_TTL))
    if limits.monthly is not None:
        counts.append(Count(spent_key(caller, day[:7]), MONTH_TTL))
    return tuple(counts)
