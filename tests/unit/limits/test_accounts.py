"""What one turn adds to the counters of its caller, and where they are."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from openai_dify_proxy.events import Usage
from openai_dify_proxy.limits.accounts import (
    Account,
    Amounts,
    Tally,
    Work,
    caller_name,
    day_of,
    end_of_day,
    end_of_month,
    read_caller,
    totals,
)


def details(work: Work) -> Amounts:
    tally = Tally()
    tally.add(work)
    return tally.details(work.app, work.outcome)


USAGE = Usage(10, 5, 15, "0.0001085", "USD", 0.5)


def test_a_turn_that_ended() -> None:
    work = Work("support", "stop", USAGE)
    assert dict(totals(work)) == {"turns": 1, "tokens": 15, "price:USD": 108_500}
    assert dict(details(work)) == {
        "turns support": 1,
        "outcome:stop support": 1,
        "prompt_tokens support": 10,
        "completion_tokens support": 5,
        "tokens support": 15,
        "price:USD support": 108_500,
    }


def test_a_turn_that_dify_has_not_started_is_no_turn_of_a_budget() -> None:
    work = Work("support", "turn_failed", started=False)
    assert totals(work) == ()
    assert dict(details(work)) == {"turns support": 1, "outcome:turn_failed support": 1}


def test_pictures() -> None:
    work = Work("owner/model", "ok", pictures=3)
    assert dict(totals(work)) == {"turns": 1}
    assert dict(details(work))["pictures owner/model"] == 3


@pytest.mark.parametrize(
    ("usage", "prices"),
    [
        (Usage(prices=(("USD", "1"), ("RMB", "0.0000001"))), {"price:USD": 10**9, "price:RMB": 100}),
        (Usage(price="1", currency="usd"), {"price:USD": 10**9}),
        (Usage(price="1", currency="US Dollars"), {"price:XXX": 10**9}),
        (Usage(price="1", currency="x" * 9), {"price:XXX": 10**9}),
        (Usage(price="0.0", currency="USD"), {}),
        (Usage(price="-1", currency="USD"), {}),
        (Usage(price="1"), {}),
        (Usage(), {}),
        (None, {}),
    ],
)
def test_prices(usage: Usage | None, prices: dict[str, int]) -> None:
    found = totals(Work("app", "stop", usage))
    assert {name: amount for name, amount in found if name.startswith("price:")} == prices


@pytest.mark.parametrize("account", [Account("key-1", "The team"), Account("anonymous"), Account("key-2", "a b  c")])
def test_callers_of_a_day(account: Account) -> None:
    assert read_caller(caller_name(account)) == account


@pytest.mark.parametrize(
    ("at", "day", "tomorrow", "next_month"),
    [
        ("2026-11-29T00:00:00", "2026-11-29", "2026-11-30T00:00:00", "2026-12-01T00:00:00"),
        ("2026-12-31T23:59:59", "2026-12-31", "2027-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("2028-02-29T12:00:00", "2028-02-29", "2028-03-01T00:00:00", "2028-03-01T00:00:00"),
        ("2027-01-31T12:00:00", "2027-01-31", "2027-02-01T00:00:00", "2027-02-01T00:00:00"),
    ],
)
def test_days_and_months_are_those_of_utc(at: str, day: str, tomorrow: str, next_month: str) -> None:
    now, end, month_end = (
        datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in (at, tomorrow, next_month)
    )
    assert (day_of(now), end_of_day(now), end_of_month(now)) == (day, end, month_end)


def test_pictures_of_turns_that_are_booked_by_themselves() -> None:
    work = Work("painter", "ok", pictures=2, turns=0)
    assert totals(work) == ()
    assert dict(details(work)) == {"pictures painter": 2}
