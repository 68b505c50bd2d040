"""The counters of callers in the state: their keys, their names, and the amounts that one turn adds to them. Pure.

``spent:<caller>:<period>`` has the totals of a calendar day or month, which budgets are checked against.
``usage:<day>:<caller>`` has the details by app, and ``usage-callers:<day>`` the callers of a day with their names.
All days and months are those of UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from msgspec import Struct

from openai_dify_proxy.events import Usage
from openai_dify_proxy.translate.prices import to_nanos

DAY = 86_400.0

DAY_TTL = 3 * DAY
MONTH_TTL = 70 * DAY
"""How long totals are stored after their last change: longer than their period."""

MAX_DAYS = 400
"""The longest range of a report, and the longest time that usage is stored."""

DEFAULT_DAYS = 30
"""The days of a report without a range, today included."""

MAX_CURRENCY = 8

OTHER_CURRENCY = "XXX"
"""ISO 4217's code for no currency, for names that are not codes."""

Amounts = tuple[tuple[str, int], ...]


class Account(Struct, frozen=True):
    """The account that usage is booked to. ``name`` is that of the key; requests with Dify keys share one account."""

    id: str
    name: str = ""


class Work(Struct, frozen=True):
    """The usage of one turn. ``outcome`` is one word, ``usage`` holds Dify's own counts.

    A turn that Dify has not ``started`` does not count as a turn of a budget. ``turns`` is 0 for pictures of turns that
    are booked by themselves.
    """

    app: str
    outcome: str
    usage: Usage | None = None
    pictures: int = 0
    started: bool = True
    turns: int = 1


@lru_cache(maxsize=4)
def day_name(number: int) -> str:
    """Return the name of the day with this number, counted from 1970."""
    return datetime.fromtimestamp(number * DAY, UTC).strftime("%Y-%m-%d")


def day_of(now: float) -> str:
    """Return the day of a time in seconds since the epoch: ``2026-11-29``."""
    return day_name(int(now // DAY))


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


class Tally(Struct):
    """The sum of the usage of turns. ``prices`` are in billionths, by currency."""

    turns: int = 0
    pictures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: int = 0
    prices: dict[str, int] = {}

    def add(self, work: Work) -> None:
        self.turns += work.turns
        self.pictures += work.pictures
        usage = work.usage
        if usage is None:
            return
        self.prompt_tokens += max(0, usage.prompt_tokens)
        self.completion_tokens += max(0, usage.completion_tokens)
        self.tokens += max(0, usage.total_tokens)
        for name, price in usage.costs:
            if nanos := to_nanos(price):
                currency = _currency(name)
                self.prices[currency] = self.prices.get(currency, 0) + nanos

    def totals(self, *, started: bool) -> Amounts:
        """Return what the turns add to the totals of a period; those that Dify has not ``started`` are no turns."""
        amounts = {"turns": self.turns if started else 0, "tokens": self.tokens, **self._named_prices}
        return tuple((name, amount) for name, amount in amounts.items() if amount > 0)

    def details(self, app: str, outcome: str) -> Amounts:
        """Return what the turns add to the usage of a day: names are a measure, a space, and the app."""
        measures = {
            "turns": self.turns,
            f"outcome:{outcome}": self.turns,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens": self.tokens,
            "pictures": self.pictures,
            **self._named_prices,
        }
        return tuple((f"{measure} {app}", amount) for measure, amount in measures.items() if amount > 0)

    @property
    def _named_prices(self) -> dict[str, int]:
        return {f"price:{currency}": nanos for currency, nanos in self.prices.items()}


def totals(work: Work) -> Amounts:
    """Return what one turn adds to the totals of a period."""
    counted = work.turns if work.started else 0
    amounts: list[tuple[str, int]] = [("turns", counted)] if counted > 0 else []
    usage = work.usage
    if usage is None:
        return tuple(amounts)
    if usage.total_tokens > 0:
        amounts.append(("tokens", usage.total_tokens))
    for name, price in usage.costs:
        if nanos := to_nanos(price):
            amounts.append((f"price:{_currency(name)}", nanos))
    return tuple(amounts)


@lru_cache(maxsize=64)
def _currency(name: str) -> str:
    """Return the currency with this name; another name is no currency."""
    return name.upper() if name.isascii() and name.isalpha() and len(name) <= MAX_CURRENCY else OTHER_CURRENCY
