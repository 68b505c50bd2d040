"""The configured apps: from the TOML file, other proxies' variables, and ``DIFY_API_KEY``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from openai_dify_proxy.settings.names import (
    ALIASES,
    APP_KEYS,
    SINGLE_APP,
    Draft,
    RawValue,
    first,
    named_tables,
    table_fields,
)
from openai_dify_proxy.settings.values import strip_scheme

_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.IGNORECASE)


def draft_apps(
    table: Mapping[str, Any],
    file: str,
    variables: Mapping[str, RawValue],
    raw: dict[str, RawValue],
    problems: list[str],
) -> dict[str, Draft]:
    """Return the apps of every source; for ``DIFY_API_KEY`` also set ``default_app``. Appends to ``problems``."""
    apps = _apps_of_toml(table.get("apps", {}), file, variables, problems)
    for name, key in _apps_of_variables(variables, problems):
        apps.setdefault(name, Draft(key.origin, {"api_key": key}))
    if "dify_api_key" in raw:
        _add_single_app(apps, variables, raw, problems)
    for app in apps.values():
        if "api_url" not in app.fields and "dify_api_url" in raw:
            app.fields["api_url"] = raw["dify_api_url"]
    return apps


def _apps_of_toml(
    tables: object, file: str, variables: Mapping[str, RawValue], problems: list[str]
) -> dict[str, Draft]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        problems.append(f"apps in {file} must be tables: write [apps.<name>], and the app's settings below")
        return {}
    named = named_tables(tables, "apps", file, APP_KEYS, problems)
    return {name: _app_of_toml(name, table, file, variables, problems) for name, table in named.items()}


def _app_of_toml(
    name: str, table: Mapping[str, Any], file: str, variables: Mapping[str, RawValue], problems: list[str]
) -> Draft:
    origin = f"[apps.{name}] in {file}"
    fields = table_fields(table, origin, APP_KEYS, "an app", problems)
    variable = fields.get("api_key_env")
    if variable and "api_key" in fields:
        problems.append(f"{origin} has both api_key and api_key_env: remove one")
    elif variable:
        fields["api_key"] = key_from_variable(variable, variables, problems, "api_key")
    return Draft(origin, fields)


def key_from_variable(
    variable: RawValue, variables: Mapping[str, RawValue], problems: list[str], setting: str
) -> RawValue:
    """Return the key in the variable that a setting names. ``setting`` is the setting for the key itself."""
    name = variable.value
    if not isinstance(name, str) or not name.strip():
        pass  # validation reports it
    elif name in variables:
        return variables[name]
    elif _VARIABLE_NAME.fullmatch(name):
        problems.append(f"{variable.origin} names {name}, which is set neither in the environment nor in .env")
    else:
        problems.append(f"{variable.origin} must be the name of a variable. To set the key itself, use {setting}")
    # With a placeholder, the app's other settings are checked too.
    return RawValue("unset", variable.origin)


def _apps_of_variables(variables: Mapping[str, RawValue], problems: list[str]) -> list[tuple[str, RawValue]]:
    pairs: list[tuple[str, RawValue]] = []
    if model_map := variables.get("DIFY_MODEL_MAP"):
        for entry in filter(None, (entry.strip() for entry in model_map.value.split(","))):
            name, colon, key = entry.rpartition(":")
            if colon and name.strip() and key.strip():
                pairs.append((name.strip(), RawValue(key, model_map.origin)))
            else:
                problems.append(f'{model_map.origin} must be pairs of a name and a key: "support:app-…,sales:app-…"')
    if model_config := variables.get("MODEL_CONFIG"):
        try:
            pairs += [
                (name, RawValue(key, model_config.origin)) for name, key in json.loads(model_config.value).items()
            ]
        except (ValueError, AttributeError):
            problems.append(f'{model_config.origin} must be a JSON object of names and keys: {{"support": "app-…"}}')
    return pairs


def _add_single_app(
    apps: dict[str, Draft], variables: Mapping[str, RawValue], raw: dict[str, RawValue], problems: list[str]
) -> None:
    """Make the app of ``DIFY_API_KEY`` the default, under its own name if the file has an app with that key."""
    value, origin = raw["dify_api_key"]
    keys = [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else [value]
    if not keys:
        del raw["dify_api_key"]
        return
    raw["dify_api_key"] = RawValue(keys[0], origin)
    named = next((name for name, app in apps.items() if _has_key(app, keys[0])), None)
    raw.setdefault("default_app", RawValue(named or SINGLE_APP, origin))
    if named:
        return
    options = {
        "input_variable": raw.get("input_variable"),
        "output_variable": raw.get("output_variable"),
        "mode": first(variables, ALIASES["mode"]),
    }
    # Other proxies call three modes "Chat"; Dify reports which one it is.
    fields = {
        name: option
        for name, option in options.items()
        if option and not (name == "mode" and option.value.strip().lower() == "chat")
    }
    for number, key in enumerate(keys, 1):
        name = SINGLE_APP if number == 1 else f"{SINGLE_APP}-{number}"
        if name in apps:
            problems.append(f"{apps[name].origin} has the name of the app of {origin}: rename it")
        else:
            apps[name] = Draft(origin, {"api_key": RawValue(key, origin), **fields})


def _has_key(app: Draft, key: object) -> bool:
    own = app.fields.get("api_key")
    return own is not None and isinstance(own.value, str) and strip_scheme(own.value) == strip_scheme(key)
