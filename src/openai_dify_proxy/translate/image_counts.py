"""How many pictures one prediction makes, and how seeds go on from one prediction to the next."""

from __future__ import annotations

import math
from typing import Any

from openai_dify_proxy.translate.model_schema import ModelInput

MAX_PICTURES = 10
"""The most that a request may ask for, as at OpenAI."""


def counts_of(field: ModelInput) -> list[int]:
    """The numbers of pictures that one prediction can be asked for by ``field``, in their order."""
    if field.options:
        numbers = [number_in(option) for option in field.options]
        return sorted(number for number in numbers if number is not None and 0 < number <= MAX_PICTURES)
    if field.kind not in ("integer", "number"):
        return []
    low = 1 if field.minimum is None else max(1, math.ceil(field.minimum))
    high = MAX_PICTURES if field.maximum is None else min(MAX_PICTURES, math.floor(field.maximum))
    return list(range(low, high + 1))


def number_in(value: Any) -> int | None:
    """The whole number that a value of a schema says, be it a text."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def count_up(seed: Any, by: int, field: ModelInput) -> Any:
    """``seed + by``, begun anew where the model's range ends."""
    if field.options or isinstance(seed, bool) or not isinstance(seed, (int, float)):
        return seed
    if field.maximum is None:
        return seed + by
    low = min(0, seed) if field.minimum is None else math.ceil(field.minimum)
    return low + (seed + by - low) % (math.floor(field.maximum) - low + 1)
