"""The settings for the usage of callers; ``model`` has the other settings."""

from __future__ import annotations

from pydantic import BaseModel, Field

from openai_dify_proxy.settings.base import CONFIG


class UsageSettings(BaseModel):
    """Usage"""

    model_config = CONFIG

    usage_days: int = Field(default=90, ge=1, le=400)
    """For how many days the [usage](limits.md#usage) of each day is stored, in the state."""
