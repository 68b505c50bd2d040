"""The settings in the environment of worker processes, which do not read the sources again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from pydantic import SecretStr

from openai_dify_proxy.settings.model import Settings
from openai_dify_proxy.settings.sources import load_settings

VARIABLE = "OPENAI_DIFY_PROXY_SETTINGS"


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the variable that holds the settings, keys included."""
    return {VARIABLE: json.dumps(settings.model_dump(), default=SecretStr.get_secret_value)}


def from_environment(env: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that the parent process set, else those of ``load_settings``."""
    env = os.environ if env is None else env
    return Settings(**json.loads(env[VARIABLE])) if VARIABLE in env else load_settings(env=env)
