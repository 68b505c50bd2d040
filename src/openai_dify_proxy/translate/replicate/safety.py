"""The safety inputs of models, and how permissive their values are."""

from __future__ import annotations

import re
from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import ModelInput

SWITCHES = {"disable_safety_checker": False, "enable_safety_checker": True}
"""Inputs that switch a checker, with the value for which the checker is on."""

_STRICTEST_FIRST: dict[str, tuple[Any, ...]] = {
    **{name: (checks, not checks) for name, checks in SWITCHES.items()},
    "safety_filter_level": ("block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"),
    "moderation": ("auto", "low"),
}

TOLERANCE = "safety_tolerance"
SAFETY_INPUTS = (*_STRICTEST_FIRST, TOLERANCE)
"""Inputs that can make a model less strict."""

_MAX_WITH_PICTURE = re.compile(r"(\d+) is (?:currently )?the maximum allowed when (?:an )?input images?", re.IGNORECASE)


def most_permissive(field: ModelInput, with_picture: bool) -> Any:
    """Return the most permissive value of a safety input.

    Some models accept a lower tolerance with an input picture, and state this only in the description.
    """
    if field.name in SWITCHES:
        return not SWITCHES[field.name]
    if field.name == "safety_filter_level":
        return "block_only_high"
    match = _MAX_WITH_PICTURE.search(field.description) if with_picture else None
    bounds = [bound for bound in (field.highest, int(match[1]) if match else None) if bound is not None]
    return min(bounds, default=None)


def is_more_permissive(name: str, value: Any, current: Any) -> bool:
    """Return whether ``value`` is more permissive than ``current`` for the input ``name``; True for unknown values."""
    if name not in SAFETY_INPUTS or value == current:
        return False
    value_rank, current_rank = _permissiveness(name, value), _permissiveness(name, current)
    return value_rank is None or value_rank > (current_rank or 0)


def _permissiveness(name: str, value: Any) -> float | None:
    """Return the rank of a value, where 0 is the strictest; None for unknown values."""
    if name == TOLERANCE:
        try:
            return float(value)
        except (TypeError, ValueError):
            return None
    known = _STRICTEST_FIRST[name]
    return known.index(value) if value in known else None
