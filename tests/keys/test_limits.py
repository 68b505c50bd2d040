from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from openai_dify_proxy.keys.limits import NO_LIMITS, Budget, KeyLimits

LIMITS = KeyLimits(
    requests_per_minute=60,
    concurrent_turns=2,
    daily=Budget(turns=100, price={"USD": Decimal("0.10")}),
    monthly=Budget(tokens=5_000_000),
    priority=-3,
)
AS_JSON = (
    b'{"requests_per_minute":60,"concurrent_turns":2,"daily":{"turns":100,"price":{"USD":"0.10"}},'
    b'"monthly":{"tokens":5000000},"priority":-3}'
)


def test_limits_are_stored_with_exact_prices_and_without_absent_limits() -> None:
    assert msgspec.json.encode(LIMITS) == AS_JSON
    assert msgspec.json.decode(AS_JSON, type=KeyLimits) == LIMITS
    assert msgspec.json.encode(NO_LIMITS) == b"{}"


@pytest.mark.parametrize(
    "text",
    ['{"requests_per_minute":0}', '{"daily":{"turns":-1}}', '{"priority":11}', '{"monthly":{"price":{"USD":[]}}}'],
)
def test_impossible_limits_cannot_be_read(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=KeyLimits)
