"""How many pictures one prediction makes, and how seeds go on from one prediction to the next."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import INT64, ModelInput

MAX_PICTURES = 10
"""The most that a request may ask for, as at OpenAI."""


def counts_of(field: ModelInput) -> list[int]:
    """The numbers of pictures that one prediction can be asked for by ``field``, in their order."""
    if field.options:
        numbers = [number_in(option) for option in field.options]
        return sorted(number for number in numbers if number is not None and 0 < number <= MAX_PICTURES)
    if field.kind not in ("integer", "number"):
        return []
    return [count for count in range(1, MAX_PICTURES + 1) if field.fits(count)]


def number_in(value: Any) -> int | None:
    """The whole number that a value of a schema says, be it a text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def count_up(seed: Any, by: int, field: ModelInput) -> Any:
    """``seed + by``, begun anew where the model's range ends; a negative seed often means a random one, and stays."""
    if field.options or isinstance(seed, bool) or not isinstance(seed, (int, float)) or seed < 0:
        return seed
    low = max(0, field.lowest or 0)
    high = INT64[-1] if field.highest is None else field.highest
    counted = low + (seed + by - low) % (high - low + 1)
    return counted if field.fits(counted) else seed
