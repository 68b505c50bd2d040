"""The settings as worker processes receive them from their parent. Workers do not read the sources again."""

from __future__ import annotations

import json

from pydantic import SecretStr

from openai_dify_proxy.settings.model import Settings


def encode_settings(settings: Settings) -> bytes:
    """Return the settings as JSON, keys included."""
    return json.dumps(settings.model_dump(), default=SecretStr.get_secret_value).encode()


def decode_settings(data: bytes) -> Settings:
    """Return the settings that ``encode_settings`` encoded."""
    return Settings(**json.loads(data))
