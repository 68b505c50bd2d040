"""The settings of the console; ``model`` has the other settings."""

from __future__ import annotations

from pydantic import BaseModel

from openai_dify_proxy.settings.base import CONFIG
from openai_dify_proxy.settings.values import Flag


class ConsoleSettings(BaseModel):
    """Console"""

    model_config = CONFIG

    console: Flag = True
    """Whether the server's own address shows the [console](console.md), a page to see and try everything with."""
