"""The limits of a client key. ``None`` means no limit."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]

LOWEST_PRIORITY, HIGHEST_PRIORITY = -10, 10


class Budget(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The budget of a caller for one period: turns, tokens, and Dify's own prices.

    ``price`` has an amount for each limited currency (``USD``). In JSON, amounts are decimal strings.
    """

    turns: Count | None = None
    tokens: Count | None = None
    price: dict[str, Decimal] = {}


class KeyLimits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits of one key, which apply to its caller in all processes together.

    ``daily`` and ``monthly`` are calendar days and months in UTC. Waiting turns of a higher ``priority`` are served
    first; 0 is that of all other callers.
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent_turns: Count | None = None
    daily: Budget | None = None
    monthly: Budget | None = None
    priority: Annotated[int, Meta(ge=LOWEST_PRIORITY, le=HIGHEST_PRIORITY)] = 0


NO_LIMITS = KeyLimits()
