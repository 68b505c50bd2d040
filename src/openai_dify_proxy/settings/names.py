"""The names of settings, ours and those of other proxies, and values that are not validated yet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from openai_dify_proxy.settings.model import AppSettings, ImageModelSettings, Settings

SETTINGS = tuple(name for name in Settings.model_fields if name != "warnings")
TABLES = ("apps", "image_models")
"""Settings that are tables of a TOML file, ``[apps.<name>]`` and ``[images.models.<name>]``."""
VARIABLES = {name.upper(): name for name in SETTINGS if name not in TABLES}
APP_KEYS = (*(name for name in AppSettings.model_fields if name != "name"), "api_key_env")
IMAGE_MODEL_KEYS = tuple(name for name in ImageModelSettings.model_fields if name != "name")
CONFIG_FILE = "CONFIG_FILE"
SINGLE_APP = "dify"

# The variables of other proxies. Their three time limits are of whole blocking calls; as a limit on silence they
# end a hanging call without cutting a long answer that is still arriving.
ALIASES: dict[str, tuple[str, ...]] = {
    "host": ("SERVER_HOST",),
    "port": ("SERVER_PORT",),
    "dify_api_url": ("DIFY_API_BASE", "DIFY_BASE_URL", "DIFY_API_ENDPOINT", "Dify__ApiBase"),
    "dify_api_key": ("DIFY_API_KEYS",),  # several, comma separated: one app each, the first is the default
    "api_keys": ("VALID_API_KEYS", "PROXY_API_KEY"),
    "cors_origins": ("CORS_ORIGIN",),
    "conversations": ("CONVERSATION_MEMORY_MODE", "CONVERSATION_MODE", "MEMORY_MODE"),
    "silence_timeout": ("DIFY_TIMEOUT", "HTTP_TIMEOUT", "TIMEOUT"),
    "apps": ("DIFY_MODEL_MAP", "MODEL_CONFIG"),  # "name:key,name:key" or {"name": "key"}
    "replicate_api_token": ("REPLICATE_API_KEY",),
    "mode": ("BOT_TYPE", "DIFY_APP_TYPE"),  # of the app of DIFY_API_KEY
}

# Other proxies' settings that have no meaning here and are no misspellings.
UNUSED = frozenset({"AUTH_MODE", "MODELS_NAME", "POOL_SIZE"})


class Given(NamedTuple):
    """A value before validation; ``origin`` is the subject of an error about it: "PORT in .env"."""

    value: Any
    origin: str


class Draft(NamedTuple):
    """An app or an image model before validation."""

    origin: str
    fields: dict[str, Given]


def first(variables: Mapping[str, Given], names: Iterable[str]) -> Given | None:
    return next((variables[name] for name in names if name in variables), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of an error about an unknown name: the closest known one, if any is close."""
    own = {alias.lower(): setting for setting, aliases in ALIASES.items() for alias in aliases}
    plain = name.lower().replace("-", "_")
    near = difflib.get_close_matches(own.get(plain, plain), list(known), n=1, cutoff=cutoff)
    return f": did you mean {near[0]}?" if near else ""
