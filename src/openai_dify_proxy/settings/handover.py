"""The settings as worker processes receive them from their parent. Workers do not read the sources again."""

from __future__ import annotations

from typing import Any

from msgspec import json

from openai_dify_proxy.settings.model import Settings
from openai_dify_proxy.settings.secret import SecretStr


def encode_settings(settings: Settings) -> bytes:
    """Return the settings as JSON, keys included."""
    return json.encode(settings, enc_hook=SecretStr.get_secret_value)


def decode_settings(data: bytes) -> Settings:
    """Return the settings that ``encode_settings`` encoded."""
    return json.decode(data, type=Settings, dec_hook=_decoded)


def _decoded(kind: type[Any], value: Any) -> Any:
    """Return a value of the one type that JSON lacks: ``SecretStr``."""
    return kind(value)
