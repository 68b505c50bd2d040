"""The inputs by which a model lets more or less through, and how their values compare."""

from __future__ import annotations

import re
from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import ModelInput

SWITCHES = {"disable_safety_checker": False, "enable_safety_checker": True}
"""Inputs that switch a checker, and how they stand when it is on."""

_STRICTEST_FIRST: dict[str, tuple[Any, ...]] = {
    **{name: (checks, not checks) for name, checks in SWITCHES.items()},
    "safety_filter_level": ("block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"),
    "moderation": ("auto", "low"),
}

TOLERANCE = "safety_tolerance"
SAFETY_INPUTS = (*_STRICTEST_FIRST, TOLERANCE)
"""Inputs that can make a model less strict."""

_MOST_WITH_PICTURE = re.compile(
    r"(\d+) is (?:currently )?the maximum allowed when (?:an )?input images?", re.IGNORECASE
)


def most_permissive(field: ModelInput, with_picture: bool) -> Any:
    """The value that lets most through.

    Some models take a lower tolerance beside an input picture, and say so only in words.
    """
    if field.name in SWITCHES:
        return not SWITCHES[field.name]
    if field.name == "safety_filter_level":
        return "block_only_high"
    said = _MOST_WITH_PICTURE.search(field.description) if with_picture else None
    bounds = [bound for bound in (field.highest, int(said[1]) if said else None) if bound is not None]
    return min(bounds, default=None)


def is_more_permissive(name: str, value: Any, usual: Any) -> bool:
    """Whether the input ``name`` lets more through with ``value`` than with ``usual``; yes if that cannot be told."""
    if name not in SAFETY_INPUTS or value == usual:
        return False
    value_rank, usual_rank = _permissiveness(name, value), _permissiveness(name, usual)
    return value_rank is None or value_rank > (usual_rank or 0)


def _permissiveness(name: str, value: Any) -> float | None:
    """The rank of a value, 0 being the strictest; None if it is not known."""
    if name == TOLERANCE:
        try:
            return float(value)
        except (TypeError, ValueError):
            return None
    known = _STRICTEST_FIRST[name]
    return known.index(value) if value in known else None
