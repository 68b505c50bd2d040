"""Validation: the given values become settings, or sentences that say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from openai_dify_proxy.settings.model import Settings
from openai_dify_proxy.settings.names import Draft, Given, did_you_mean
from openai_dify_proxy.translate.replicate.model_names import parse_model


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


Tables = Mapping[str, Mapping[str, Draft]]
"""Drafts by section (one of ``TABLES``) and name."""


def validate(given: Mapping[str, Given], tables: Tables, problems: list[str]) -> tuple[Settings, frozenset[str]]:
    """Return the valid settings and the names of rejected ones. Appends to ``problems``."""
    values: dict[str, Any] = {name: value for name, (value, _) in given.items()}
    drafts: dict[str, Any] = {
        section: {
            name: {"name": name, **{field: value for field, (value, _) in draft.fields.items()}}
            for name, draft in table.items()
        }
        for section, table in tables.items()
    }
    try:
        return Settings(**values, **drafts), frozenset()
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    problems += [_complaint(error, given, tables) for error in errors]
    for error in errors:
        section, *rest = (str(part) for part in error["loc"])
        if section in drafts:
            _leave_out(drafts[section][rest[0]], rest[0], rest[1])
        else:
            values.pop(section, None)
    return Settings(**values, **drafts), frozenset(given.keys() - values.keys())


def _leave_out(draft: dict[str, Any], name: str, field: str) -> None:
    """Remove a rejected field, so that the others are checked too; a required one gets a placeholder."""
    placeholders = {"name": name or "unset", "api_key": "unset", "api_url": "http://unset", "model": "unset/unset"}
    draft.pop(field, None)
    if field in placeholders:
        draft[field] = placeholders[field]


def _complaint(error: ErrorDetails, given: Mapping[str, Given], tables: Tables) -> str:
    section, *rest = (str(part) for part in error["loc"])
    if section not in tables:
        return f"{given[section].origin} {_what_is_wrong(error, section)}"
    draft, field = tables[section][rest[0]], rest[1]
    if error["type"] == "missing":
        return f"{draft.origin} {_WHAT_IS_MISSING[field]}"
    origin = draft.fields[field].origin if field in draft.fields else f"The name of {draft.origin}"
    return f"{origin} {_what_is_wrong(error, field)}"


_WHAT_IS_MISSING = {
    "api_key": "has neither api_key nor api_key_env: the key is on the app's page “API Access” in Dify",
    "api_url": "has no Dify to go to: set DIFY_API_URL (https://api.dify.ai/v1 for Dify Cloud)",
    "model": 'has no model: name one of Replicate\'s, such as model = "stability-ai/sdxl"',
}

_WHAT_IT_MUST_BE = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}


def _what_is_wrong(error: ErrorDetails, field: str) -> str:
    template = _WHAT_IT_MUST_BE.get(error["type"])
    text = template.format(**error.get("ctx", {})) if template else f"is not valid: {error['msg']}"
    return text + _quote(error["input"], field)


_SECRETS = {"key", "keys", "token", "auth", "store", "state"}


def _quote(value: object, field: str) -> str:
    """Return the value for the message, unless it may be a secret under a wrong name: those are long."""
    if _SECRETS & set(field.split("_")) or not isinstance(value, str | int | float) or not 0 < len(str(value)) <= 16:
        return ""
    return f", not {value!r}" if not str(value).startswith(("app-", "sk-", "r8_", "Bearer ")) else ""


def contradictions(
    settings: Settings, given: Mapping[str, Given], tables: Tables, rejected: frozenset[str]
) -> list[str]:
    """Return the problems of settings that are valid one by one and contradict each other."""
    apps = tables["apps"]
    return [
        *_unknown_app("default_app", settings.default_app, given, apps),
        *_unknown_app("enhance_prompt_app", settings.enhance_prompt_app, given, apps),
        *_unknown_app("task_model", settings.task_model, given, apps),
        *_shared_end_users(settings, given),
        *_unknown_image_model(settings.image_model, given, tables["image_models"]),
        *_shared_aliases(settings, apps),
        *_shared_names(tables),
        *_links_to_nowhere(settings, given, rejected),
        *_state_of_one_process(settings, given),
        *([] if rejected & {"host", "api_keys", "personal_keys", "allow_anonymous"} else _open_to_strangers(settings)),
    ]


def _shared_end_users(settings: Settings, given: Mapping[str, Given]) -> list[str]:
    """Reject plain end users with several clients: each may have an end user "anna"."""
    if settings.end_user_id != "plain" or len(settings.client_keys) <= 1:
        return []
    origin = given["end_user_id"].origin
    why = "end users of several clients that have the same name would share their conversations in Dify"
    return [f"{origin} can be plain only where there is a single client key: {why}"]


def _unknown_app(setting: str, name: str | None, given: Mapping[str, Given], apps: Mapping[str, Draft]) -> list[str]:
    if name is None or name in apps:
        return []
    hint = did_you_mean(name, apps) or f": there is {', '.join(apps) or 'no app at all'}"
    return [f"{given[setting].origin} names no configured app{hint}"]


def _unknown_image_model(name: str, given: Mapping[str, Given], models: Mapping[str, Draft]) -> list[str]:
    """Reject a default image model that is neither configured nor one of Replicate."""
    if name in models or parse_model(name) is not None:
        return []
    hint = did_you_mean(name, models)
    return [f"{given['image_model'].origin} is neither a model of Replicate (owner/name) nor a configured one{hint}"]


def _shared_names(tables: Tables) -> list[str]:
    return [
        f"{draft.origin} has the name of an app: call it otherwise, since clients see one list of models"
        for name, draft in tables["image_models"].items()
        if name in tables["apps"]
    ]


def _links_to_nowhere(settings: Settings, given: Mapping[str, Given], rejected: frozenset[str]) -> list[str]:
    """Reject links to an IPFS gateway without a gateway or uploads."""
    if settings.picture_links != "ipfs":
        return []
    return [
        f"{given['picture_links'].origin} needs {name.upper()} too"
        for name in ("ipfs_gateway_url", "ipfs_upload_url")
        if getattr(settings, name) is None and name not in rejected
    ]


def _state_of_one_process(settings: Settings, given: Mapping[str, Given]) -> list[str]:
    """Reject state in memory with several workers: the turns of a conversation reach any of them."""
    if settings.workers == 1 or not settings.state_url.get_secret_value().lower().startswith("memory:"):
        return []
    return [_FORGETFUL.format(origin=given["state_url"].origin, workers=settings.workers)]


_FORGETFUL = (
    "{origin} cannot be memory:// with WORKERS={workers}: each worker would know only the conversations that it served "
    "itself. Use sqlite:/// on one machine, redis:// or valkey:// on several"
)


def _shared_aliases(settings: Settings, apps: Mapping[str, Draft]) -> list[str]:
    problems = []
    owners: dict[str, str] = {}
    for app in settings.apps.values():
        for alias in app.aliases:
            owner = owners.setdefault(alias, app.name)
            if owner != app.name:
                problems.append(f'{apps[app.name].origin} and [apps.{owner}] both have the alias "{alias}": keep one')
            elif alias in settings.apps and alias != app.name:
                problems.append(f'{apps[app.name].origin} has the alias "{alias}", which is the name of another app')
    return problems


def _open_to_strangers(settings: Settings) -> list[str]:
    credentials = {
        "the Dify keys": settings.apps,
        "the Replicate token": settings.replicate_api_token,
        "the IPFS account": settings.ipfs_upload_auth,
        "the object store": settings.picture_store,
    }
    held = [name for name, credential in credentials.items() if credential]
    if is_loopback(settings.host) or settings.client_keys or settings.allow_anonymous or not held:
        return []
    return [_STRANGERS.format(host=settings.host, port=settings.port, held=" and ".join(held))]


_STRANGERS = (
    "Whoever reaches {host}:{port} could spend {held} configured here. "
    "Set API_KEYS to the keys that clients must show, or HOST=127.0.0.1 to serve this machine only, "
    "or ALLOW_ANONYMOUS=true if strangers are welcome"
)
