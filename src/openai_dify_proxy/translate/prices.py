"""Exact arithmetic with Dify's prices, which are decimal strings with up to seven digits after the point.

Sums are kept as whole numbers of ``NANO``, a billionth of the currency's unit, since every store can add these.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext

NANO = Decimal("1e-9")

MAX_CHARACTERS = 64
MAX_PRICE = Decimal(10) ** 6
"""The highest price of one turn that is believed. Nine billion units of a currency can be counted."""

_PLACES = 9
_NANOS = 1_000_000_000
_USUAL_WHOLE = 6

_EXACT = Context(prec=100)


def read_price(text: str) -> Decimal | None:
    """Return the price, or None if the text is not one of at most ``MAX_PRICE``."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    if not price.is_finite() or price < 0 or price > MAX_PRICE or price.as_tuple().exponent < -MAX_CHARACTERS:  # type: ignore[operator]  # finite
        return None
    return price


def add_prices(one: str, other: str) -> str:
    """Return the exact sum of two prices; one of them if the other cannot be read."""
    first, second = read_price(one), read_price(other)
    if first is None or second is None:
        return other if first is None else one
    with localcontext(_EXACT):
        return format(first + second, "f")


def subtract_prices(whole: str, part: str) -> str | None:
    """Return the exact difference of two prices; None if it is negative, or if one of them cannot be read."""
    first, second = read_price(whole), read_price(part)
    if first is None or second is None or first < second:
        return None
    with localcontext(_EXACT):
        return format(first - second, "f")


def to_nanos(text: str) -> int | None:
    """Return a price in billionths, further digits rounded; None for a text that is no price."""
    whole, _, fraction = text.partition(".")
    if len(whole) <= _USUAL_WHOLE and len(fraction) <= _PLACES and (whole + fraction).isdecimal():
        return int(whole or "0") * _NANOS + int(fraction.ljust(_PLACES, "0"))  # the usual case
    price = read_price(text)
    if price is None:
        return None
    with localcontext(_EXACT):
        return int((price / NANO).to_integral_value(ROUND_HALF_EVEN))


def from_nanos(nanos: int) -> str:
    """Return a number of billionths as a decimal string, without zeros at its end."""
    with localcontext(_EXACT):
        text = format(nanos * NANO, "f")
    return text.rstrip("0").rstrip(".")
