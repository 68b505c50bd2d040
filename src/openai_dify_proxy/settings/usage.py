"""The settings for the usage of callers; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True, kw_only=True)
class UsageSettings:
    """Usage"""

    usage_days: Annotated[int, Ge(1), Le(400)] = 90
    """For how many days the [usage](limits.md#usage) of each day is stored, in the state."""
