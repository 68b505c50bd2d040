"""Which Difys have a limit of concurrent turns."""

from __future__ import annotations

from urllib.parse import urlsplit

from openai_dify_proxy.settings import Settings

CLOUD = "api.dify.ai"
"""Dify's own cloud, which has no such limit."""


def has_limit(settings: Settings, url: str) -> bool:
    """Return whether the turns in the Dify at ``url`` are limited."""
    match settings.dify_max_concurrent:
        case "off":
            return False
        case "auto":
            return urlsplit(url).hostname != CLOUD
        case _:
            return True
