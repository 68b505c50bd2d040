"""Reads the stored usage and adds it up by key, app and day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Literal

from msgspec import Struct, field

from openai_dify_proxy.limits.accounts import Account, callers_key, read_caller, usage_key
from openai_dify_proxy.state.counters import read_counts
from openai_dify_proxy.state.store import Count, Operation
from openai_dify_proxy.translate.prices import from_nanos

Group = Literal["key", "app", "day"]

GROUPS: tuple[Group, ...] = ("key", "app", "day")

READ_AT_ONCE = 100
"""Entries in one run of the state."""

Run = Callable[..., Awaitable[Sequence[bytes | None]]]
"""``Store.run``, or a function that raises another error if the state is unavailable."""


class UsageTotals(Struct, kw_only=True, omit_defaults=True):
    """The usage of turns. ``outcomes`` counts them by how they ended; ``price`` has Dify's own prices by currency.

    Of ``key_id``, ``key``, ``app`` and ``day``, those are set that the usage is grouped by.
    """

    key_id: str | None = None
    key: str | None = None
    app: str | None = None
    day: str | None = None
    turns: int
    outcomes: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    pictures: int
    price: dict[str, str]


class UsageReport(Struct, kw_only=True):
    """The usage of the days ``from`` to ``to``, by group; ``total`` is the sum."""

    object: Literal["usage"] = "usage"
    first: str = field(name="from")
    last: str = field(name="to")
    by: list[Group]
    data: list[UsageTotals]
    total: UsageTotals


_Place = tuple[str, str, str]
"""Key id, app and day; empty where usage is not grouped by them."""


def read_groups(text: str) -> tuple[Group, ...] | None:
    """Return the groups in a text such as ``app,day``; None if one of them is unknown."""
    names = [name.strip() for name in text.split(",")]
    groups = tuple(group for group in GROUPS if group in names)
    return groups if set(names) == set(groups) else None


def days_between(first: date, last: date) -> list[str]:
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


async def read_report(run: Run, days: Sequence[str], by: Sequence[Group], *, caller: str | None = None) -> UsageReport:
    """Return the usage of ``days``, of one ``caller`` or of all. Raises the errors of ``run``."""
    sums: dict[_Place, dict[str, int]] = {}
    names: dict[str, str] = {}
    total: dict[str, int] = {}
    for day in days:
        accounts = [Account(caller)] if caller is not None else await _callers(run, day)
        names.update({account.id: account.name for account in accounts if account.name or account.id not in names})
        async for account, counts in _usage(run, day, accounts):
            for name, amount in counts.items():
                measure, _, app = name.partition(" ")
                place = (account.id if "key" in by else "", app if "app" in by else "", day if "day" in by else "")
                for counters in (sums.setdefault(place, {}), total):
                    counters[measure] = counters.get(measure, 0) + amount
    data = [_usage_of(counters, place, names) for place, counters in sums.items()]
    data.sort(key=lambda usage: (usage.day or "", usage.key or usage.key_id or "", usage.app or ""))
    return UsageReport(
        first=days[0], last=days[-1], by=list(by), data=data, total=_usage_of(total, ("", "", ""), names)
    )


async def _callers(run: Run, day: str) -> list[Account]:
    (result,) = await run(Count(callers_key(day), 1))
    return [read_caller(name) for name in read_counts(result)]


async def _usage(run: Run, day: str, accounts: Sequence[Account]) -> AsyncIterator[tuple[Account, dict[str, int]]]:
    for start in range(0, len(accounts), READ_AT_ONCE):
        portion = accounts[start : start + READ_AT_ONCE]
        operations: list[Operation] = [Count(usage_key(account.id, day), 1) for account in portion]
        for account, result in zip(portion, await run(*operations), strict=True):
            yield account, read_counts(result)


def _usage_of(counters: Mapping[str, int], place: _Place, names: Mapping[str, str]) -> UsageTotals:
    key, app, day = place
    return UsageTotals(
        key_id=key or None,
        key=names.get(key) or None,
        app=app or None,
        day=day or None,
        turns=counters.get("turns", 0),
        outcomes=dict(_with_prefix(counters.items(), "outcome:")),
        prompt_tokens=counters.get("prompt_tokens", 0),
        completion_tokens=counters.get("completion_tokens", 0),
        total_tokens=counters.get("tokens", 0),
        pictures=counters.get("pictures", 0),
        price={name: from_nanos(nanos) for name, nanos in _with_prefix(counters.items(), "price:")},
    )


def _with_prefix(counters: Iterable[tuple[str, int]], prefix: str) -> list[tuple[str, int]]:
    return sorted((name.removeprefix(prefix), count) for name, count in counters if name.startswith(prefix))
