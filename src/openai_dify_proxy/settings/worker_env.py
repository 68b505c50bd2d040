"""From the process that read the settings to the workers it starts, which must not read others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from pydantic import SecretStr

from openai_dify_proxy.settings.model import Settings
from openai_dify_proxy.settings.sources import load_settings

HANDOVER = "OPENAI_DIFY_PROXY_SETTINGS"


def to_environment(settings: Settings) -> dict[str, str]:
    """The variable that carries the settings, keys included, as ``DIFY_API_KEY`` may already stand there."""
    return {HANDOVER: json.dumps(settings.model_dump(), default=SecretStr.get_secret_value)}


def from_environment(env: Mapping[str, str] | None = None) -> Settings:
    """The settings that were handed over, or, when there are none, those that ``load_settings`` reads."""
    env = os.environ if env is None else env
    return Settings(**json.loads(env[HANDOVER])) if HANDOVER in env else load_settings(env=env)
