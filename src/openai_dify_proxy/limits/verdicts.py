"""Decides whether a request keeps within the limits of its key, and returns its headers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from openai_dify_proxy.errors import ProxyError, QuotaExceeded, RateLimited
from openai_dify_proxy.keys.limits import Budget, KeyLimits
from openai_dify_proxy.limits.accounts import end_of_day, end_of_month
from openai_dify_proxy.limits.buckets import MINUTE
from openai_dify_proxy.state.buckets import Level
from openai_dify_proxy.translate.prices import from_nanos

_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")

Headers = tuple[tuple[bytes, bytes], ...]


class Reading(Struct):
    """A caller's values in the state: the levels of its buckets, and the totals of the day and the month."""

    requests: Level | None = None
    tokens: Level | None = None
    day: Mapping[str, int] = {}
    month: Mapping[str, int] = {}


class Verdict(Struct, frozen=True):
    """The headers of the response, and the error of a request beyond a limit."""

    headers: Headers
    error: ProxyError | None = None


def judge(limits: KeyLimits, reading: Reading, now: float) -> Verdict:
    """Return the verdict on a request at the time ``now``, in seconds since the epoch.

    Of several exceeded limits the error names the one that resets last.
    """
    errors: list[ProxyError] = []
    _add_spent(errors, limits, reading, now)
    _add_rates(errors, limits, reading)
    error = max(errors, key=lambda error: error.retry_after or 0) if errors else None
    return Verdict(_headers(limits, reading), error)


def _add_rates(errors: list[ProxyError], limits: KeyLimits, reading: Reading) -> None:
    tokens = limits.tokens_per_minute
    if tokens is not None and reading.tokens is not None and tokens - reading.tokens.missing < 1:
        errors.append(_rate_error(tokens, "tokens", reading.tokens))
    requests, level = limits.requests_per_minute, reading.requests
    if requests is None or level is None:
        return
    # A request beyond another limit has drawn from this bucket as well, and its retry draws again.
    if not level.allowed or (errors and level.missing + 1 > requests):
        errors.append(_rate_error(requests, "requests", level))


def _rate_error(limit: int, unit: str, level: Level) -> ProxyError:
    """Return the error of a bucket that lacks one unit."""
    seconds = max(1, math.ceil((level.missing + 1 - limit) * MINUTE / limit))
    return RateLimited(
        f"This API key may use {limit} {unit} per minute. Send the request again in {seconds} s.", retry_after=seconds
    )


def _add_spent(errors: list[ProxyError], limits: KeyLimits, reading: Reading, now: float) -> None:
    if limits.daily is not None and (spent := _exhausted(limits.daily, reading.day)):
        errors.append(_budget_error("daily", spent, end_of_day(now), now))
    if limits.monthly is not None and (spent := _exhausted(limits.monthly, reading.month)):
        errors.append(_budget_error("monthly", spent, end_of_month(now), now))


def _exhausted(budget: Budget, spent: Mapping[str, int]) -> str:
    """Return which part of the budget is used up, in words; an empty string if none is."""
    if budget.turns is not None and spent.get("turns", 0) >= budget.turns:
        return f"{spent['turns']} of {budget.turns} turns"
    if budget.tokens is not None and spent.get("tokens", 0) >= budget.tokens:
        return f"{spent['tokens']} of {budget.tokens} tokens"
    for currency, amount in budget.price.items():
        nanos = spent.get(f"price:{currency.upper()}", 0)
        if nanos >= amount.scaleb(9):
            return f"{from_nanos(nanos)} of {amount:f} {currency}"
    return ""


def _budget_error(period: str, spent: str, end: float, now: float) -> ProxyError:
    when = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return QuotaExceeded(
        f"The {period} budget of this API key is used up: {spent}. It is renewed at {when}.",
        retry_after=max(1, math.ceil(end - now)),
    )


def _headers(limits: KeyLimits, reading: Reading) -> Headers:
    """Return OpenAI's headers: the limit, the remaining number, and the time until the whole limit is available
    again."""
    headers: Headers = ()
    if limits.requests_per_minute is not None and reading.requests is not None:
        headers = _bucket_headers(_REQUESTS, limits.requests_per_minute, reading.requests)
    if limits.tokens_per_minute is not None and reading.tokens is not None:
        headers += _bucket_headers(_TOKENS, limits.tokens_per_minute, reading.tokens)
    return headers


def _bucket_headers(names: tuple[bytes, bytes, bytes], limit: int, level: Level) -> Headers:
    left = max(0, math.floor(limit - level.missing + 1e-9))
    reset = duration(level.missing * MINUTE / limit)
    return (names[0], b"%d" % limit), (names[1], b"%d" % left), (names[2], reset.encode())


def duration(seconds: float) -> str:
    """Return a duration in OpenAI's form, rounded up to milliseconds: ``20ms``, ``1.5s``, ``6m0s``, ``1h2m3s``."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
