"""The settings of the console; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import Flag


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """Console"""

    console: Flag = True
    """Whether the server's own address shows the [console](console.md), a page to try apps and watch traffic."""
