"""Prices are added exactly, and only what is a price counts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.translate.prices import add_prices, from_nanos, read_price, to_nanos

digits = st.integers(0, 10**11)


def price(sevenths: int) -> str:
    """Return a price as Dify writes it: with seven digits after the point."""
    return f"{sevenths // 10**7}.{sevenths % 10**7:07}"


@given(st.lists(digits, max_size=50))
def test_the_sum_is_exact_to_the_last_digit(amounts: list[int]) -> None:
    total = sum(to_nanos(price(amount)) or 0 for amount in amounts)
    assert Fraction(from_nanos(total)) == Fraction(sum(amounts), 10**7)
    text = "0"
    for amount in amounts:
        text = add_prices(text, price(amount))
    assert Fraction(text) == Fraction(sum(amounts), 10**7)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0.0001085", 108_500),
        ("0E-7", 0),
        ("1.085E-5", 10_850),
        ("12", 12_000_000_000),
        ("0.0000000005", 0),  # half of a billionth, to even
        ("0.0000000015", 2),
        ("1000000", 10**15),
        ("1000000.1", None),
        ("-0.1", None),
        ("NaN", None),
        ("Infinity", None),
        ("1e999999999", None),
        ("1e-999999999", None),
        ("free", None),
        ("", None),
        ("0." + "1" * 80, None),
    ],
)
def test_what_is_a_price(text: str, nanos: int | None) -> None:
    assert to_nanos(text) == nanos
    assert (read_price(text) is None) == (nanos is None)


@pytest.mark.parametrize(("nanos", "text"), [(0, "0"), (1, "0.000000001"), (108_500, "0.0001085"), (5 * 10**9, "5")])
def test_a_sum_as_text(nanos: int, text: str) -> None:
    assert from_nanos(nanos) == text


@pytest.mark.parametrize(("one", "other", "total"), [("1", "x", "1"), ("x", "1", "1"), ("x", "y", "y")])
def test_what_cannot_be_read_is_not_added(one: str, other: str, total: str) -> None:
    assert add_prices(one, other) == total
