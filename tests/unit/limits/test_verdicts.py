"""The verdict on a request, its headers, and its message."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.errors import ProxyError, QuotaExceeded, RateLimited
from openai_dify_proxy.keys.limits import NO_LIMITS, Budget, KeyLimits
from openai_dify_proxy.limits.limiter import has_limits
from openai_dify_proxy.limits.verdicts import Reading, duration, judge
from openai_dify_proxy.state.buckets import Level

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()


def error_of(limits: KeyLimits, reading: Reading, now: float = NOON) -> ProxyError:
    error = judge(limits, reading, now).error
    assert error is not None
    return error


def test_no_limit() -> None:
    verdict = judge(NO_LIMITS, Reading(), NOON)
    assert verdict.headers == ()
    assert verdict.error is None


@pytest.mark.parametrize(
    ("limits", "checked"),
    [
        (NO_LIMITS, False),
        (KeyLimits(concurrent_turns=1, priority=5), False),
        (KeyLimits(requests_per_minute=1), True),
        (KeyLimits(tokens_per_minute=1), True),
        (KeyLimits(daily=Budget(turns=1)), True),
        (KeyLimits(monthly=Budget(turns=1)), True),
    ],
)
def test_which_limits_are_checked_per_request(limits: KeyLimits, checked: bool) -> None:
    assert has_limits(limits) is checked


def test_headers_say_what_is_left() -> None:
    limits = KeyLimits(requests_per_minute=60, tokens_per_minute=6000)
    verdict = judge(limits, Reading(requests=Level(True, 1), tokens=Level(True, 1500.5)), NOON)
    assert dict(verdict.headers) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"4499",
        b"x-ratelimit-reset-tokens": b"15.005s",
    }
    assert verdict.error is None


@pytest.mark.parametrize(
    ("limit", "missing", "seconds"), [(60, 60.0, 1), (60, 59.5, 1), (1, 1.0, 60), (2, 1.5, 15), (1, 0.75, 45)]
)
def test_too_many_requests(limit: int, missing: float, seconds: int) -> None:
    verdict = judge(KeyLimits(requests_per_minute=limit), Reading(requests=Level(False, missing)), NOON)
    assert dict(verdict.headers)[b"x-ratelimit-remaining-requests"] == b"%d" % int(limit - missing)
    error = verdict.error
    assert type(error) is RateLimited
    assert error.code == "rate_limit_exceeded"
    assert error.message == (
        f"This API key may use {limit} requests per minute. Send the request again in {seconds} s."
    )
    assert error.retry_after == seconds


def test_a_debt_of_tokens_has_to_be_paid_first() -> None:
    limits = KeyLimits(tokens_per_minute=600)
    verdict = judge(limits, Reading(tokens=Level(True, 1800)), NOON)
    assert dict(verdict.headers)[b"x-ratelimit-remaining-tokens"] == b"0"
    assert dict(verdict.headers)[b"x-ratelimit-reset-tokens"] == b"3m0s"
    assert verdict.error is not None
    assert verdict.error.retry_after == 121  # the bucket gains ten tokens in a second, and one has to be there
    assert judge(limits, Reading(tokens=Level(True, 599)), NOON).error is None
    assert error_of(limits, Reading(tokens=Level(True, 599.5))).retry_after == 1


@given(limit=st.integers(1, 10**6), missing=st.floats(0, 10**7))
def test_after_retry_after_there_is_one_token(limit: int, missing: float) -> None:
    error = judge(KeyLimits(tokens_per_minute=limit), Reading(tokens=Level(True, missing)), NOON).error
    if error is None:
        assert limit - missing >= 1
    else:
        assert error.retry_after is not None
        assert limit - (missing - error.retry_after * limit / 60) >= 1 - 1e-6


@given(requests=st.integers(1, 1000), used=st.floats(0, 1), tokens=st.integers(1, 10**6), missing=st.floats(0, 10**7))
def test_after_retry_after_both_buckets_admit_a_request(
    requests: int, used: float, tokens: int, missing: float
) -> None:
    """A request that lacks tokens has drawn from the bucket of requests, which its retry needs again."""
    drawn = 1 + used * (requests - 1)
    limits = KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens)
    error = judge(limits, Reading(Level(True, drawn), Level(True, missing)), NOON).error
    if error is not None:
        assert error.retry_after is not None
        minutes = error.retry_after / 60
        assert max(0, drawn - minutes * requests) + 1 <= requests + 1e-6
        assert tokens - (missing - minutes * tokens) >= 1 - 1e-6


def test_a_rejected_request_counts_in_its_retry_after() -> None:
    limits = KeyLimits(requests_per_minute=2, tokens_per_minute=100)
    error = error_of(limits, Reading(Level(True, 2), Level(True, 127)))
    assert error.retry_after == 30  # the tokens are there after 17 seconds
    assert error.message == "This API key may use 2 requests per minute. Send the request again in 30 s."
    assert error_of(limits, Reading(Level(True, 1), Level(True, 127))).retry_after == 17
    last_second = datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    spent = Reading(Level(True, 2), None, {"turns": 1})
    assert error_of(KeyLimits(requests_per_minute=2, daily=Budget(turns=1)), spent, last_second).retry_after == 30


@pytest.mark.parametrize(
    ("budget", "spent", "words"),
    [
        (Budget(turns=3), {"turns": 3}, "3 of 3 turns"),
        (Budget(turns=3), {"turns": 2, "tokens": 10**9}, None),
        (Budget(tokens=1000), {"tokens": 1200}, "1200 of 1000 tokens"),
        (Budget(price={"USD": Decimal("0.5")}), {"price:USD": 499_999_999}, None),
        (Budget(price={"USD": Decimal("0.5")}), {"price:USD": 500_000_000}, "0.5 of 0.5 USD"),
        (Budget(price={"usd": Decimal(2)}), {"price:USD": 2_000_108_500}, "2.0001085 of 2 usd"),
        (Budget(price={"USD": Decimal(2)}), {"price:EUR": 10**12}, None),
        (Budget(price={"USD": Decimal(5000000)}), {"price:USD": 5 * 10**15}, "5000000 of 5000000 USD"),
        (Budget(turns=3), {}, None),
    ],
)
def test_budgets(budget: Budget, spent: dict[str, int], words: str | None) -> None:
    daily = judge(KeyLimits(daily=budget), Reading(day=spent), NOON).error
    monthly = judge(KeyLimits(monthly=budget), Reading(month=spent), NOON).error
    if words is None:
        assert daily is monthly is None
        return
    assert type(daily) is type(monthly) is QuotaExceeded
    assert daily.code == daily.type == "insufficient_quota"
    assert daily.message == (
        f"The daily budget of this API key is used up: {words}. It is renewed at 2026-11-30 00:00 UTC."
    )
    assert daily.retry_after == 12 * 3600
    assert monthly.message == (
        f"The monthly budget of this API key is used up: {words}. It is renewed at 2026-12-01 00:00 UTC."
    )
    assert monthly.retry_after == 36 * 3600


def test_the_error_is_about_the_limit_that_is_free_last() -> None:
    limits = KeyLimits(requests_per_minute=1, daily=Budget(turns=1), monthly=Budget(turns=1))
    spent = {"turns": 1}
    everything = Reading(Level(False, 1), None, spent, spent)
    assert "monthly" in error_of(limits, everything).message
    assert "daily" in error_of(limits, Reading(Level(False, 1), None, spent)).message
    last_second = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    assert "requests per minute" in error_of(limits, everything, last_second).message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (59.9996, "1m0s"),
        (90, "1m30s"),
        (360, "6m0s"),
        (3723.25, "1h2m3.25s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
