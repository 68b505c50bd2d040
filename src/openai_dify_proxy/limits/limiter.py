"""Checks requests against the limits of their keys, by one run of the state.

While the state is unavailable, each process applies the limits by itself: its own buckets, and the totals that it has
seen, with what it has booked since. So an outage neither stops the callers nor lifts their limits, and no request waits
longer for the state than any other does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from openai_dify_proxy.keys.limits import KeyLimits
from openai_dify_proxy.limits.accounts import DAY_TTL, MONTH_TTL, day_of, spent_key
from openai_dify_proxy.limits.buckets import requests_bucket, tokens_bucket
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.limits.verdicts import Reading, Verdict, judge
from openai_dify_proxy.state.buckets import Level, read_level
from openai_dify_proxy.state.counters import read_counts
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Count, Draw


def has_limits(limits: KeyLimits) -> bool:
    """Return whether requests have to be checked. Concurrent turns and priorities are matters of admission."""
    rates = limits.requests_per_minute, limits.tokens_per_minute
    return any(limit is not None for limit in (*rates, limits.daily, limits.monthly))


class Limiter:
    """Checks the requests of callers. ``now`` is a clock in seconds since the epoch."""

    def __init__(self, store: GuardedStore, ledger: Ledger, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ledger = ledger
        self._now = now

    async def check(self, caller: str, limits: KeyLimits) -> Verdict:
        """Count a request of ``caller``, and return whether it keeps within the limits of its key."""
        now = self._now()
        draws, counts = _draws(caller, limits), _counts(caller, limits, now)
        results = await self._store.run(*draws.values(), *counts.values())
        if results is None:
            levels = await self._ledger.local.run(*draws.values())
            totals = [self._ledger.known(operation.key) for operation in counts.values()]
        else:
            levels, rest = results[: len(draws)], results[len(draws) :]
            totals = [
                self._ledger.note(operation.key, read_counts(result))
                for operation, result in zip(counts.values(), rest, strict=True)
            ]
        buckets: dict[str, Level] = dict(zip(draws, map(read_level, levels), strict=True))
        spent: dict[str, Mapping[str, int]] = dict(zip(counts, totals, strict=True))
        reading = Reading(buckets.get("requests"), buckets.get("tokens"), spent.get("day", {}), spent.get("month", {}))
        return judge(limits, reading, now)


def _draws(caller: str, limits: KeyLimits) -> dict[str, Draw]:
    draws = {}
    if limits.requests_per_minute is not None:
        draws["requests"] = requests_bucket(caller, limits.requests_per_minute)
    if limits.tokens_per_minute is not None:
        draws["tokens"] = tokens_bucket(caller, limits.tokens_per_minute)
    return draws


def _counts(caller: str, limits: KeyLimits, now: float) -> dict[str, Count]:
    day = day_of(now)
    counts = {}
    if limits.daily is not None:
        counts["day"] = Count(spent_key(caller, day), DAY_TTL)
    if limits.monthly is not None:
        counts["month"] = Count(spent_key(caller, day[:7]), MONTH_TTL)
    return counts
