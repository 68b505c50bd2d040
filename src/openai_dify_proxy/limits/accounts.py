"""The counters of callers in the state: their keys, their names, and the amounts that one turn adds to them. Pure.

``spent:<caller>:<period>`` has the totals of a calendar day or month, which budgets are checked against.
``usage:<day>:<caller>`` has the details by app, and ``usage-callers:<day>`` the callers of a day with their names.
All days and months are those of UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from openai_dify_proxy.events import Usage
from openai_dify_proxy.translate.prices import to_nanos

DAY_TTL = 3 * 86_400.0
MONTH_TTL = 70 * 86_400.0
"""How long totals are stored after their last change: longer than their period."""

MAX_CURRENCY = 8

OTHER_CURRENCY = "XXX"
"""ISO 4217's code for no currency, for what is not a code."""

Amounts = tuple[tuple[str, int], ...]


class Account(Struct, frozen=True):
    """Whose usage is booked. ``name`` is that of the key; requests with Dify keys share one account."""

    id: str
    name: str = ""


class Work(Struct, frozen=True):
    """What one turn used. ``outcome`` is one word, ``usage`` holds Dify's own counts.

    A turn that Dify has not ``started`` is no turn of a budget.
    """

    app: str
    outcome: str
    usage: Usage | None = None
    pictures: int = 0
    started: bool = True


def day_of(now: float) -> str:
    """Return the day of a time in seconds since the epoch: ``2026-11-29``."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def month_of(now: float) -> str:
    return day_of(now)[:7]


def end_of_day(now: float) -> float:
    """Return when the day ends, in seconds since the epoch."""
    start = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (start + timedelta(days=1)).timestamp()


def end_of_month(now: float) -> float:
    start = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (start + timedelta(days=32)).replace(day=1).timestamp()


def spent_key(caller: str, period: str) -> str:
    return f"spent:{caller}:{period}"


def usage_key(caller: str, day: str) -> str:
    return f"usage:{day}:{caller}"


def callers_key(day: str) -> str:
    return f"usage-callers:{day}"


def caller_name(account: Account) -> str:
    """Return the name of a caller's counter in the list of a day's callers."""
    return f"{account.id} {account.name}"


def read_caller(name: str) -> Account:
    """Return the caller with this name of its counter."""
    caller, _, label = name.partition(" ")
    return Account(caller, label)


def prices_of(usage: Usage | None) -> list[tuple[str, int]]:
    """Return the prices of a turn in billionths, by currency."""
    costs: Sequence[tuple[str, str]] = () if usage is None else usage.costs
    return [(_currency(name), nanos) for name, price in costs if (nanos := to_nanos(price))]


def totals(work: Work) -> Amounts:
    """Return what a turn adds to the totals of a period."""
    amounts = [("turns", 1)] if work.started else []
    if work.usage is not None and work.usage.total_tokens > 0:
        amounts.append(("tokens", work.usage.total_tokens))
    return (*amounts, *((f"price:{currency}", nanos) for currency, nanos in prices_of(work.usage)))


def details(work: Work) -> Amounts:
    """Return what a turn adds to the usage of a day, by app: names are a measure, a space, and the app."""
    usage = work.usage or Usage()
    measures = {
        "turns": 1,
        f"outcome:{work.outcome}": 1,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "tokens": usage.total_tokens,
        "pictures": work.pictures,
    }
    amounts = [*measures.items(), *((f"price:{currency}", nanos) for currency, nanos in prices_of(work.usage))]
    return tuple((f"{measure} {work.app}", amount) for measure, amount in amounts if amount > 0)


def _currency(name: str) -> str:
    return name.upper() if name.isascii() and name.isalpha() and len(name) <= MAX_CURRENCY else OTHER_CURRENCY
