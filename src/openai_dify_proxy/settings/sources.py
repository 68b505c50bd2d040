"""Settings from flags, environment, ``.env`` and TOML file.

For each setting the first of these that is not empty wins: the flag; the variable of its own name in the
environment, then in ``.env``; another proxy's name for it (``ALIASES``), in the same two places; the TOML file; the
default. Each value carries its origin until it is validated, so that an error can name the place.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from openai_dify_proxy.settings.apps import draft_apps
from openai_dify_proxy.settings.checks import contradictions, risks, unprotected, validate
from openai_dify_proxy.settings.client_keys import draft_client_keys
from openai_dify_proxy.settings.dotenv import read_dotenv
from openai_dify_proxy.settings.image_models import draft_image_models
from openai_dify_proxy.settings.model import Settings, SettingsError
from openai_dify_proxy.settings.names import (
    ALIASES,
    APP_KEYS,
    TOML_KEYS,
    TOML_TABLES,
    UNREADABLE,
    UNUSED,
    VARIABLES,
    Draft,
    RawValue,
    did_you_mean,
    first,
)
from openai_dify_proxy.settings.values import strip_scheme


def load_settings(
    *,
    env: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
    config: Path | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
) -> Settings:
    """Read every source and return the settings. Raises ``SettingsError`` with every problem found.

    ``env`` replaces the process's environment. ``dotenv`` is the path of ``.env``; with ``None``, none is read.
    ``config`` is the path of the TOML file; with ``None``, ``CONFIG_FILE`` names it. ``overrides`` holds flags by
    setting name; ``None`` is a flag that is not set.
    """
    problems: list[str] = []
    variables = _read_variables(os.environ if env is None else env, dotenv, problems)
    if config is not None:
        variables["CONFIG_FILE"] = RawValue(str(config), "--config")
    file = variables["CONFIG_FILE"].value if "CONFIG_FILE" in variables else ""
    table = _read_toml(Path(file), problems) if file else {}
    raw = {
        **_from_toml(table, file, problems),
        **_from_variables(variables),
        **{
            name: RawValue(value, f"--{name.replace('_', '-')}")
            for name, value in overrides.items()
            if value is not None
        },
    }
    if "XDG_DATA_HOME" in variables:
        folder, origin = variables["XDG_DATA_HOME"]
        raw.setdefault("image_storage_dir", RawValue(f"{folder}/openai-dify-proxy/pictures", origin))
        raw.setdefault("audit_log", RawValue(f"{folder}/openai-dify-proxy/audit.jsonl", origin))
        raw.setdefault("state_url", RawValue(f"sqlite:///{folder}/openai-dify-proxy/state.db", origin))
    apps = draft_apps(table, file, variables, raw, problems)
    keys = draft_client_keys(table, file, variables, problems)
    warnings = _key_warnings(apps)
    if dotenv:
        warnings += _dotenv_warnings(variables, [*apps.values(), *keys.values()], dotenv)
    raw["warnings"] = RawValue(warnings, "")
    tables = {"apps": apps, "image_models": draft_image_models(table, file, problems), "keys": keys}
    settings, rejected = validate(raw, tables, problems)
    problems += contradictions(settings, raw, tables, rejected)
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)), warnings)
    found: dict[str, Any] = {
        "warnings": (*settings.warnings, *risks(settings, raw)),
        "unprotected": unprotected(settings),
    }
    return replace(settings, **found)


def _read_variables(env: Mapping[str, str], dotenv: Path | None, problems: list[str]) -> dict[str, RawValue]:
    """Return the variables by name: the environment wins over the file, and an empty value counts as not set."""
    in_file: Mapping[str, str | None] = {}
    unreadable: set[str] = set()
    if dotenv and dotenv.is_file():
        try:
            in_file, malformed, unreadable = read_dotenv(dotenv, env)
            problems += [f"Line {line} of {dotenv} cannot be read: {_ASSIGNMENT}" for line in malformed]
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{dotenv} cannot be read: {_reason(error)}")
    return {
        **{name: RawValue(UNREADABLE, f"{name} in {dotenv}") for name in unreadable - _PARSED},
        **{name: RawValue(value, f"{name} in {dotenv}") for name, value in in_file.items() if value and value.strip()},
        **{name: RawValue(value, f"{name} in the environment") for name, value in env.items() if value.strip()},
    }


# Not marked as unreadable, since they are parsed before validation.
_PARSED = {"CONFIG_FILE", "XDG_DATA_HOME", *ALIASES["apps"], *ALIASES["mode"]}
_ASSIGNMENT = "write NAME=value, and close each quotation mark"


def _read_toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"The settings file {path} cannot be read: {_reason(error)}")
    except (ValueError, RecursionError) as error:  # ValueError includes integers of too many digits
        problems.append(f"The settings file {path} is not TOML: {error}")
    return {}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or type(error).__name__)


def _from_variables(variables: Mapping[str, RawValue]) -> dict[str, RawValue]:
    raw = {name: first(variables, (variable, *ALIASES.get(name, ()))) for variable, name in VARIABLES.items()}
    return {name: value for name, value in raw.items() if value is not None}


def _from_toml(table: Mapping[str, Any], file: str, problems: list[str]) -> dict[str, RawValue]:
    known = {*TOML_KEYS, *TOML_TABLES, "apps", "images", "keys"}
    for key in (key for key in table if key not in known):
        hint = ": it belongs under [apps.<name>]" if key in APP_KEYS else did_you_mean(key, known)
        problems.append(f"{key} in {file} is not a setting{hint}")
    tables = {name for name in TOML_TABLES if name not in TOML_KEYS or isinstance(table.get(name), dict)}
    raw = {key: RawValue(value, f"{key} in {file}") for key, value in table.items() if key in TOML_KEYS - tables}
    for name in sorted(tables):
        raw |= _from_table(table.get(name, {}), f"[{name}]", TOML_TABLES[name], file, problems)
    return raw


def _from_table(
    table: object, heading: str, names: Mapping[str, str], file: str, problems: list[str]
) -> dict[str, RawValue]:
    """Return the settings of a table under ``heading``; ``names`` are the settings of its keys."""
    if not isinstance(table, dict):
        problems.append(f"{heading.strip('[]')} in {file} must be a table: write {heading}, and its settings below")
        return {}
    origin = f"{heading} in {file}"
    problems += [f"{key} of {origin} is not a setting{did_you_mean(key, names)}" for key in table if key not in names]
    return {names[key]: RawValue(value, f"{key} of {origin}") for key, value in table.items() if key in names}


def _key_warnings(apps: Mapping[str, Draft]) -> tuple[str, ...]:
    """Return a warning for each key of another kind than apps have, such as ``dataset-…``."""
    keys = [app.fields["api_key"] for app in apps.values() if "api_key" in app.fields]
    origins = dict.fromkeys(
        key.origin
        for key in keys
        if isinstance(key.value, str) and key.value != "unset" and not strip_scheme(key.value).startswith("app-")
    )
    return tuple(
        f'{origin} does not begin with "app-". Copy the key from the app\'s page “API Access” in Dify'
        for origin in origins
    )


def _dotenv_warnings(variables: Mapping[str, RawValue], drafts: Iterable[Draft], dotenv: Path) -> tuple[str, ...]:
    """Return a warning for each unknown name in ``.env`` that resembles a setting; other programs share the file."""
    named = {key.origin.split(" ")[0] for draft in drafts for key in draft.fields.values()}
    known = {*VARIABLES, *UNUSED, *named, *(alias for aliases in ALIASES.values() for alias in aliases)}
    warnings = []
    for name, (_, origin) in variables.items():
        near = difflib.get_close_matches(name.upper(), list(VARIABLES), n=1, cutoff=0.75)
        if origin == f"{name} in {dotenv}" and name not in known and near:
            warnings.append(f"{origin} is not a setting: did you mean {near[0]}?")
    return tuple(warnings)
