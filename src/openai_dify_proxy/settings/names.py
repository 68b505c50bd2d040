"""The names of settings, here and in other proxies, and values before validation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from openai_dify_proxy.settings.image_model_settings import ImageModelSettings
from openai_dify_proxy.settings.keys import ClientKeySettings
from openai_dify_proxy.settings.limits import LimitSettings
from openai_dify_proxy.settings.model import AppSettings, Settings

TABLES = ("apps", "image_models", "keys")
"""Fields of ``Settings`` that are tables of a TOML file: ``[apps.<name>]``, ``[images.models.<name>]`` and so on."""


def _names(model: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(model))


VARIABLES = {name.upper(): name for name in _names(Settings) if name not in (*TABLES, "unprotected", "warnings")}
"""Fields of ``Settings`` by the name of their environment variable."""
TOML_KEYS = frozenset(VARIABLES.values()) - {"config_file"}
"""Settings at the top of a TOML file, which cannot name a TOML file itself."""
TOML_TABLES = {
    "dify": {name.removeprefix("dify_"): name for name in sorted(TOML_KEYS) if name.startswith("dify_")},
    "limits": {name: name for name in _names(LimitSettings)},
    "tools": {name.removeprefix("tools_"): name for name in sorted(TOML_KEYS) if name.startswith("tools_")}
    | {"mode": "tools"},
}
"""Tables of a TOML file that group settings: the setting of each of their keys. ``tools`` is also a setting."""
APP_KEYS = tuple(name for name in _names(AppSettings) if name != "name")
CLIENT_KEY_KEYS = tuple(name for name in _names(ClientKeySettings) if name != "name")
IMAGE_MODEL_KEYS = tuple(name for name in _names(ImageModelSettings) if name != "name")
SINGLE_APP = "dify"

ALIASES: dict[str, tuple[str, ...]] = {
    "host": ("SERVER_HOST",),
    "port": ("SERVER_PORT",),
    "dify_api_url": ("DIFY_API_BASE", "DIFY_BASE_URL", "DIFY_API_ENDPOINT", "Dify__ApiBase"),
    "dify_api_key": ("DIFY_API_KEYS",),  # several, comma-separated: one app each, the first is the default
    "api_keys": ("VALID_API_KEYS", "PROXY_API_KEY"),
    "cors_origins": ("CORS_ORIGIN",),
    "conversations": ("CONVERSATION_MEMORY_MODE", "CONVERSATION_MODE", "MEMORY_MODE"),
    # Elsewhere these limit a whole blocking call. As a limit on silence they end a call that hangs, and do not cut a
    # long answer that is still arriving.
    "silence_timeout": ("DIFY_TIMEOUT", "HTTP_TIMEOUT", "TIMEOUT"),
    "apps": ("DIFY_MODEL_MAP", "MODEL_CONFIG"),  # "name:key,name:key" or {"name": "key"}
    "replicate_api_token": ("REPLICATE_API_KEY",),
    # The names that other programs read, too.
    "https_proxy": ("https_proxy",),
    "http_proxy": ("http_proxy",),
    "no_proxy": ("no_proxy",),
    "mode": ("BOT_TYPE", "DIFY_APP_TYPE"),  # of the app of DIFY_API_KEY
}
"""Variables of other proxies by the setting that they stand for."""

UNUSED = frozenset({"AUTH_MODE", "MODELS_NAME", "POOL_SIZE"})
"""Variables of other proxies that have no meaning here and are not misspellings."""


class RawValue(NamedTuple):
    """A value before validation. ``origin`` is the subject of an error about it: "PORT in .env"."""

    value: Any
    origin: str


UNREADABLE = object()
"""The value of a variable on a line of ``.env`` that cannot be read.

No type of a setting accepts it. Its error is about the line, so others about the value are omitted."""


class Draft(NamedTuple):
    """An app, an image model or a client key before validation."""

    origin: str
    fields: dict[str, RawValue]


def named_tables(
    tables: Mapping[str, Any], section: str, file: str, keys: Iterable[str], problems: list[str]
) -> dict[str, Any]:
    """Return the tables of ``section`` by name. Appends a problem for each name that was split at its dot.

    TOML reads ``[apps.gpt-4.1]`` as a table ``1`` in the table ``gpt-4``. The result has it as ``gpt-4.1``, so that its
    settings are checked too. ``keys`` are the settings of a table.
    """
    found: dict[str, Any] = {}
    for name, table in tables.items():
        nested = {key: value for key, value in table.items() if isinstance(value, dict) and not did_you_mean(key, keys)}
        for key, value in nested.items():
            problems.append(
                f"[{section}.{name}.{key}] in {file} is not valid. "
                f'A name with a dot needs quotation marks: [{section}."{name}.{key}"]'
            )
            found[f"{name}.{key}"] = value
        if table.keys() > nested.keys() or not nested:
            found[name] = {key: value for key, value in table.items() if key not in nested}
    return found


def table_fields(
    table: Mapping[str, Any], origin: str, keys: Iterable[str], kind: str, problems: list[str]
) -> dict[str, RawValue]:
    """Return the settings of a table, whose possible settings are ``keys``. Appends a problem for each other key.

    ``origin`` and ``kind`` are for errors: ``[apps.support] in proxy.toml`` and ``an app``.
    """
    problems += [
        f"{key} of {origin} is not a setting of {kind}{did_you_mean(key, keys)}" for key in table if key not in keys
    ]
    return {key: RawValue(value, f"{key} of {origin}") for key, value in table.items() if key in keys}


def first(variables: Mapping[str, RawValue], names: Iterable[str]) -> RawValue | None:
    """Return the value of the first of ``names`` that is set."""
    return next((variables[name] for name in names if name in variables), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of an error about an unknown name: the closest known one, or nothing if none is close."""
    by_alias = {alias.lower(): setting for setting, aliases in ALIASES.items() for alias in aliases}
    plain = name.lower().replace("-", "_")
    near = difflib.get_close_matches(by_alias.get(plain, plain), list(known), n=1, cutoff=cutoff)
    return f": did you mean {near[0]}?" if near else ""
