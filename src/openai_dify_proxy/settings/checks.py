"""Validation: raw values become settings, or sentences that say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from openai_dify_proxy.settings.descriptions import Model, described_fields, type_name
from openai_dify_proxy.settings.hosts import is_loopback
from openai_dify_proxy.settings.image_model_settings import ImageModelSettings
from openai_dify_proxy.settings.keys import SHORTEST_SECRET, ClientKeySettings
from openai_dify_proxy.settings.limits import BODY_MEMORY_FACTOR
from openai_dify_proxy.settings.model import AppSettings, Settings
from openai_dify_proxy.settings.names import UNREADABLE, Draft, RawValue, did_you_mean
from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.translate.replicate.model_names import parse_model

Tables = Mapping[str, Mapping[str, Draft]]
"""Drafts by section (one of ``TABLES``) and name."""

_SETTINGS = TypeAdapter(Settings)


def validate(raw: Mapping[str, RawValue], tables: Tables, problems: list[str]) -> tuple[Settings, frozenset[str]]:
    """Return the valid settings and the names of rejected ones. Appends to ``problems``."""
    values: dict[str, Any] = {name: value for name, (value, _) in raw.items()}
    drafts: dict[str, Any] = {
        section: {
            name: {"name": name, **{field: value for field, (value, _) in draft.fields.items()}}
            for name, draft in table.items()
        }
        for section, table in tables.items()
    }
    try:
        return _SETTINGS.validate_python({**values, **drafts}), frozenset()
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    problems += [_problem(error, raw, tables) for error in errors if error["input"] is not UNREADABLE]
    for error in errors:
        section, *rest = (str(part) for part in error["loc"])
        if section in drafts:
            _remove(drafts[section][rest[0]], rest[0], rest[1])
        else:
            values.pop(section, None)
    return _SETTINGS.validate_python({**values, **drafts}), frozenset(raw.keys() - values.keys())


def _remove(draft: dict[str, Any], name: str, field: str) -> None:
    """Remove a rejected field, so that the others are checked too; a required one gets a placeholder."""
    placeholders = {"name": name or "unset", "api_key": "unset", "api_url": "http://unset", "model": "unset/unset"}
    draft.pop(field, None)
    if field in placeholders:
        draft[field] = placeholders[field]


def _problem(error: ErrorDetails, raw: Mapping[str, RawValue], tables: Tables) -> str:
    section, *rest = (str(part) for part in error["loc"])
    if section not in tables:
        one_of = "One of " if rest and error["input"] != raw[section].value else ""
        return f"{one_of}{raw[section].origin} {_message(error, Settings, section)}"
    return draft_problem(error, _MODELS[section], tables[section][rest[0]], *rest[1:])


_MODELS: Mapping[str, Model] = {
    "apps": AppSettings,
    "image_models": ImageModelSettings,
    "keys": ClientKeySettings,
}


def draft_problem(error: ErrorDetails, model: Model, draft: Draft, field: int | str, *_: int | str) -> str:
    """Return the sentence for an error about a ``field`` of a draft."""
    field = str(field)
    if error["type"] == "missing":
        return f"{draft.origin} {_MISSING[field]}"
    origin = draft.fields[field].origin if field in draft.fields else f"The name of {draft.origin}"
    return f"{origin} {_message(error, model, field)}"


_MISSING = {
    "api_key": "has neither api_key nor api_key_env. The key is on the app's page “API Access” in Dify",
    "api_url": "needs a Dify: set DIFY_API_URL (https://api.dify.ai/v1 for Dify Cloud)",
}

_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
"""The predicates of errors by pydantic's type of error."""


def _message(error: ErrorDetails, model: Model, name: str) -> str:
    """Return the predicate of an error about a field, with the rejected value."""
    field = described_fields(model)[name]
    template = _MESSAGES.get(error["type"])
    kind = type_name(field)
    if kind.startswith("integer"):
        text = f"must be an {kind}"
    elif template:
        text = template.format(**error.get("ctx", {}))
    else:
        text = f"is not valid: {error['msg']}"
    value = error["input"]
    if kind == "URL" and not _SECRETS & set(name.split("_")) and isinstance(value, str) and _ADDRESS.fullmatch(value):
        return f"{text}, not {value!r}. Did you mean http://{value}?"
    return text + _quote(value, name)


_ADDRESS = re.compile(r"(localhost|\d+(\.\d+){3}|([a-z0-9-]+\.)+[a-z]{2,}|[a-z0-9-]+(?=:\d))(:\d{1,5})?(/[\w./-]*)?")
"""An address without its scheme. Keys, which may have been set under a wrong name, do not look like one."""


_SECRETS = {"key", "keys", "token", "auth", "store", "state"}


def _quote(value: object, field: str) -> str:
    """Return the rejected value, unless it may be a secret that was set under a wrong name: secrets are long."""
    if _SECRETS & set(field.split("_")) or not isinstance(value, str | int | float) or not 0 < len(str(value)) <= 16:
        return ""
    return f", not {value!r}" if not str(value).startswith(("app-", "sk-", "r8_", "Bearer ")) else ""


def contradictions(
    settings: Settings, raw: Mapping[str, RawValue], tables: Tables, rejected: frozenset[str]
) -> list[str]:
    """Return the problems of valid settings that contradict each other."""
    apps = tables["apps"]
    return [
        *_unknown_app("default_app", settings.default_app, raw, apps),
        *_unknown_app("enhance_prompt_app", settings.enhance_prompt_app, raw, apps),
        *_unknown_app("audio_app", settings.audio_app, raw, apps),
        *_unknown_app("task_model", settings.task_model, raw, apps),
        *_shared_end_users(settings, raw),
        *_unknown_image_model(settings.image_model, raw, tables["image_models"]),
        *_shared_aliases(settings, apps),
        *_shared_names(tables),
        *_image_sources(settings, tables),
        *_missing_ipfs_settings(settings, raw, rejected),
        *_memory_state_of_workers(settings, raw),
        *_small_body_memory(settings, raw),
        *_repeated_keys(settings, tables["keys"]),
    ]


def _shared_end_users(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    """Reject plain end users with several client keys: each client may have an end user "anna"."""
    if settings.end_user_id != "plain" or settings.number_of_keys <= 1:
        return []
    origin = raw["end_user_id"].origin
    return [f"{origin} {_SHARED_END_USERS}"]


_SHARED_END_USERS = (
    "can be plain with a single client key only. "
    "With several, end users with the same name would share their conversations in Dify"
)


def _unknown_app(setting: str, name: str | None, raw: Mapping[str, RawValue], apps: Mapping[str, Draft]) -> list[str]:
    if name is None or name in apps:
        return []
    hint = did_you_mean(name, apps) or f". Configured: {', '.join(apps) or 'none'}"
    return [f"{raw[setting].origin} is not the name of a configured app{hint}"]


def _unknown_image_model(name: str, raw: Mapping[str, RawValue], models: Mapping[str, Draft]) -> list[str]:
    """Reject a default image model that is neither configured nor named like a Replicate model."""
    if name in models or parse_model(name) is not None:
        return []
    hint = did_you_mean(name, models)
    return [f"{raw['image_model'].origin} is neither a Replicate model (owner/name) nor a configured one{hint}"]


def _shared_names(tables: Tables) -> list[str]:
    return [
        f"{draft.origin} has the name of an app: rename it, since clients see one list of models"
        for name, draft in tables["image_models"].items()
        if name in tables["apps"]
    ]


def _image_sources(settings: Settings, tables: Tables) -> list[str]:
    """Reject image models with neither a Replicate model nor an app, with both, and settings that apps do not have."""
    problems = []
    for name, model in settings.image_models.items():
        draft = tables["image_models"][name]
        if (model.model is None) == (model.app is None):
            has = "neither model nor app" if model.app is None else "both model and app"
            problems.append(f'{draft.origin} has {has}. Set one, such as model = "stability-ai/sdxl"')
        elif model.app is not None:
            problems += _unknown_app("app", model.app, draft.fields, tables["apps"])
            problems += [
                f"{draft.fields[key].origin} has no effect on a Dify app: remove it"
                for key in ("upscaler", "mask_repaints")
                if key in draft.fields
            ]
    return problems


def _missing_ipfs_settings(settings: Settings, raw: Mapping[str, RawValue], rejected: frozenset[str]) -> list[str]:
    """Reject links to IPFS without a gateway or without uploads."""
    if settings.picture_links != "ipfs":
        return []
    return [
        f"{raw['picture_links'].origin} requires {name.upper()}"
        for name in ("ipfs_gateway_url", "ipfs_upload_url")
        if getattr(settings, name) is None and name not in rejected
    ]


def _memory_state_of_workers(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    """Reject state in memory with several workers: any of them may serve the next turn of a conversation."""
    if settings.workers == 1 or is_shared(settings.state_url.get_secret_value()):
        return []
    return [_MEMORY_STATE.format(origin=raw["state_url"].origin, workers=settings.workers)]


_MEMORY_STATE = (
    "{origin} cannot be memory:// with WORKERS={workers}, since workers would not share conversations. "
    "Use sqlite:/// on one machine, redis:// or valkey:// on several"
)


def _small_body_memory(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    """Reject memory that the largest body does not fit into."""
    least = BODY_MEMORY_FACTOR * settings.max_body_bytes
    if settings.memory_for_bodies >= least:
        return []
    return [f"{raw['body_memory'].origin} must be at least three times MAX_BODY_BYTES, which is {least} bytes"]


def _shared_aliases(settings: Settings, apps: Mapping[str, Draft]) -> list[str]:
    problems = []
    owners: dict[str, str] = {}
    for app in settings.apps.values():
        for alias in app.aliases:
            owner = owners.setdefault(alias, app.name)
            if owner != app.name:
                problems.append(f'{apps[app.name].origin} and [apps.{owner}] both have the alias "{alias}": remove one')
            elif alias in settings.apps and alias != app.name:
                problems.append(
                    f'{apps[app.name].origin} has the alias "{alias}", which is the name of another app: remove it'
                )
    return problems


def risks(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    """Return warnings about valid settings that are probably not meant so."""
    return [*_short_keys(settings, raw), *_open_to_pages(settings, raw)]


def _short_keys(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    personal = tuple(key for key, _ in settings.personal_keys)
    listed = {name: keys for name, keys in (("api_keys", settings.api_keys), ("personal_keys", personal)) if keys}
    named = [(f"[keys.{name}]", key.key) for name, key in settings.keys.items() if key.key is not None]
    keys = [(raw[name].origin if name in raw else name.upper(), key) for name, keys in listed.items() for key in keys]
    short = dict.fromkeys(origin for origin, key in [*keys, *named] if len(key.get_secret_value()) < SHORTEST_SECRET)
    return [_SHORT_KEY.format(origin=origin, least=SHORTEST_SECRET) for origin in short]


_SHORT_KEY = (
    "{origin} has a key of fewer than {least} characters, which can be guessed. "
    "Create one with 'openai-dify-proxy keys create NAME', or with 'openssl rand -hex 32'"
)


def _open_to_pages(settings: Settings, raw: Mapping[str, RawValue]) -> list[str]:
    held = _held_credentials(settings)
    if "*" not in settings.cors_origins or settings.number_of_keys or not held:
        return []
    return [_OPEN_TO_PAGES.format(origin=raw["cors_origins"].origin, held=" and ".join(held))]


_OPEN_TO_PAGES = (
    "{origin} is * without client keys: any web page that a user of this server opens can use {held}. "
    "Set API_KEYS, or list the origins of your own pages"
)


def _held_credentials(settings: Settings) -> list[str]:
    credentials = {
        "the Dify keys": settings.apps,
        "the Replicate token": settings.replicate_api_token,
        "the IPFS account": settings.ipfs_upload_auth,
        "the object store": settings.picture_store,
    }
    return [name for name, credential in credentials.items() if credential]


def unprotected(settings: Settings) -> str | None:
    """Return why the server must not start if there are no client keys in the state, or None if it may."""
    held = _held_credentials(settings)
    if is_loopback(settings.host) or settings.number_of_keys or settings.allow_anonymous or not held:
        return None
    return _UNPROTECTED.format(host=settings.host, port=settings.port, held=" and ".join(held))


_UNPROTECTED = (
    "Without client keys, anyone who can connect to {host}:{port} could use {held}. "
    "Create a key with 'openai-dify-proxy keys create NAME --admin', or set API_KEYS to the keys that clients must "
    "present, HOST=127.0.0.1 to serve this machine only, or ALLOW_ANONYMOUS=true to serve everyone"
)


def _repeated_keys(settings: Settings, drafts: Mapping[str, Draft]) -> list[str]:
    """Reject one key under several names: its caller would be any of them."""
    owners = {key.get_secret_value(): "API_KEYS or PERSONAL_KEYS" for key, _ in settings.client_keys}
    problems = []
    for name, key in settings.keys.items():
        if key.key is not None:
            owner = owners.setdefault(key.key.get_secret_value(), f"[keys.{name}]")
            if owner != f"[keys.{name}]":
                problems.append(f"{drafts[name].origin} has the key of {owner}: remove one")
    return problems
