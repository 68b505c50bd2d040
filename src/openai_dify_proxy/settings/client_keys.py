"""The client keys of the TOML file, ``[keys.<name>]``, and the options of ``keys create``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from openai_dify_proxy.settings.apps import key_from_variable
from openai_dify_proxy.settings.checks import draft_problem
from openai_dify_proxy.settings.keys import ClientKeySettings
from openai_dify_proxy.settings.model import SettingsError
from openai_dify_proxy.settings.names import CLIENT_KEY_KEYS, Draft, RawValue, named_tables, table_fields

_SOURCES = ("key", "key_env", "key_hash")


def draft_client_keys(
    table: Mapping[str, Any], file: str, variables: Mapping[str, RawValue], problems: list[str]
) -> dict[str, Draft]:
    """Return the keys by name. Appends to ``problems``."""
    tables = table.get("keys", {})
    if not isinstance(tables, dict) or not all(isinstance(key, dict) for key in tables.values()):
        problems.append(f"keys in {file} must be tables: write [keys.<name>], and the key's settings below")
        return {}
    named = named_tables(tables, "keys", file, CLIENT_KEY_KEYS, problems)
    return {name: _draft(name, key, file, variables, problems) for name, key in named.items()}


def _draft(
    name: str, table: Mapping[str, Any], file: str, variables: Mapping[str, RawValue], problems: list[str]
) -> Draft:
    origin = f"[keys.{name}] in {file}"
    fields = table_fields(table, origin, CLIENT_KEY_KEYS, "a client key", problems)
    present = [source for source in _SOURCES if source in fields]
    if not present:
        problems.append(f"{origin} has no key. Set one of {', '.join(_SOURCES)}")
    elif len(present) > 1:
        problems.append(f"{origin} has both {' and '.join(present)}: remove one")
    elif present == ["key_env"]:
        fields["key"] = key_from_variable(fields["key_env"], variables, problems, "key")
    return Draft(origin, fields)


def client_key_of_options(name: str, options: Mapping[str, object]) -> ClientKeySettings:
    """Return the settings of a key that the command line creates; options without a value are None.

    Raises SettingsError, whose problems name the options.
    """
    fields = {field: RawValue(value, _option(field)) for field, value in options.items() if value is not None}
    draft = Draft("the key", {"name": RawValue(name, "NAME"), **fields})
    try:
        return TypeAdapter(ClientKeySettings).validate_python(
            {field: value for field, (value, _) in draft.fields.items()}
        )
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    raise SettingsError([draft_problem(error, ClientKeySettings, draft, *error["loc"]) for error in errors])


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
