"""The number of pictures per prediction, and the seeds of successive predictions."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import INT64, ModelInput

MAX_PICTURES = 10
"""The limit of ``n``, the same as OpenAI's."""


def counts_of(field: ModelInput) -> list[int]:
    """Return the numbers of pictures that ``field`` accepts for one prediction, in ascending order."""
    if field.options:
        numbers = [number_in(option) for option in field.options]
        return sorted(number for number in numbers if number is not None and 0 < number <= MAX_PICTURES)
    if field.kind not in ("integer", "number"):
        return []
    return [count for count in range(1, MAX_PICTURES + 1) if field.fits(count)]


def number_in(value: Any) -> int | None:
    """Return a whole number given as a number or as text; None for other values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def count_up(seed: Any, by: int, field: ModelInput) -> Any:
    """Return ``seed + by``, wrapped around at the end of the model's range.

    A negative seed is returned unchanged: to many models it means a random one.
    """
    if field.options or isinstance(seed, bool) or not isinstance(seed, (int, float)) or seed < 0:
        return seed
    low = max(0, field.lowest or 0)
    high = INT64[-1] if field.highest is None else field.highest
    counted = low + (seed + by - low) % (high - low + 1)
    return counted if field.fits(counted) else seed
