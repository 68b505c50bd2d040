"""Settings from flags, environment, ``.env`` and an optional TOML file: ``sources`` reads them."""

from openai_dify_proxy.settings.handover import decode_settings, encode_settings
from openai_dify_proxy.settings.hosts import is_loopback
from openai_dify_proxy.settings.image_model_settings import ImageModelSettings
from openai_dify_proxy.settings.keys import ClientKeySettings
from openai_dify_proxy.settings.limits import LimitSettings
from openai_dify_proxy.settings.model import (
    AppSettings,
    Settings,
    SettingsError,
)
from openai_dify_proxy.settings.network import NetworkSettings
from openai_dify_proxy.settings.secret import SecretStr
from openai_dify_proxy.settings.values import ConversationRule, ToolsRule

__all__ = [
    "AppSettings",
    "ClientKeySettings",
    "ConversationRule",
    "ImageModelSettings",
    "LimitSettings",
    "NetworkSettings",
    "SecretStr",
    "Settings",
    "SettingsError",
    "ToolsRule",
    "decode_settings",
    "encode_settings",
    "is_loopback",
]
