"""The work of the commands ``keys …``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import typer

from openai_dify_proxy.cli.key_tables import as_json_object, print_key, print_keys
from openai_dify_proxy.cli.output import print_json
from openai_dify_proxy.cli.running import CannotDo
from openai_dify_proxy.cli.storage import user_name
from openai_dify_proxy.keys.audit import AuditLog
from openai_dify_proxy.keys.changes import KeyProblem, Keys, add_key, find_key, revoke_key, rotate_key
from openai_dify_proxy.keys.client_key import (
    SHORTEST,
    ClientKey,
    hash_of,
    id_of_secret,
    new_id,
    new_secret,
    shown_prefix,
)
from openai_dify_proxy.keys.configured import configured_keys, make_key
from openai_dify_proxy.keys.key_store import change_keys, read_keys, read_version
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.settings.client_keys import client_key_of_options
from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.settings.values import duration
from openai_dify_proxy.state import StateUnavailable, Store, open_store
from openai_dify_proxy.state.store import STATE_TIMEOUT

TIMEOUT = 5.0
"""Seconds to wait for the state."""


def create_key(settings: Settings, name: str, options: dict[str, object], *, take_over: bool, as_json: bool) -> None:
    """Create a key and print it. Raises SettingsError for wrong options, and CannotDo."""
    now = time.time()
    expires = options["expires"]
    if isinstance(expires, str) and (seconds := duration(expires)) is not None:
        options["expires"] = now + seconds
    wanted = client_key_of_options(name, options)
    if wanted.expires is not None and wanted.expires <= now:
        raise SettingsError(["--expires is in the past"])
    _check_name(settings, name)
    secret = _secret_of_input() if take_over else new_secret()
    identity = id_of_secret(secret) if take_over else new_id()
    key = make_key(wanted, id=identity, hash=hash_of(secret), prefix=shown_prefix(secret), created_at=now)
    _change(settings, lambda keys: (add_key(keys, key), key), "key_created", **_powers(key))
    _explain(f"Created the key '{name}' ({key.id}). Running servers accept it within a second.")
    _print_secret(key, None if take_over else secret, as_json=as_json)


def _powers(key: ClientKey) -> dict[str, object]:
    """Return the rights and limits of a new key, for the audit log."""
    shown = as_json_object(key)
    return {name: shown[name] for name in ("admin", "models", "end_user", "limits", "expires_at")}


def list_keys(settings: Settings, *, revoked: bool, as_json: bool) -> None:
    """Print the keys of the state and the settings. Raises CannotDo if the state cannot be read."""
    stored = [key for key in stored_keys(settings) if revoked or key.revoked_at is None]
    listed = [*((key, "state") for key in stored), *((key, "settings") for key in configured_keys(settings))]
    if as_json:
        print_json([as_json_object(key, source) for key, source in listed])
    elif listed:
        print_keys(listed, time.time())
    else:
        typer.echo("There are no client keys. Create one: openai-dify-proxy keys create NAME")


def show_key(settings: Settings, name: str, *, as_json: bool) -> None:
    """Print one key. Raises CannotDo."""
    configured = configured_keys(settings)
    key = find((*stored_keys(settings), *configured), name)
    source = "settings" if key in configured else "state"
    if as_json:
        print_json(as_json_object(key, source))
    else:
        print_key(key, source, time.time())


def rotate_key_of(settings: Settings, name: str, grace: str | None, *, as_json: bool) -> None:
    """Rotate a key and print the new one. Raises SettingsError for a wrong duration, and CannotDo."""
    seconds = 0.0 if grace is None else duration(grace)
    if seconds is None:
        raise SettingsError(['--grace must be a duration such as "30m", "1h" or "7d"'])
    _reject_configured(settings, name)
    secret = new_secret()
    key = _change(
        settings, lambda keys: rotate_key(keys, name, secret, time.time(), seconds), "key_rotated", grace=seconds
    )
    old = "The old key no longer works." if not seconds else f"The old key works for {grace} more."
    _explain(f"Rotated the key '{key.name}' ({key.id}). {old}")
    _print_secret(key, secret, as_json=as_json)


def revoke_key_of(settings: Settings, name: str, *, yes: bool) -> None:
    """Revoke a key, after a question unless ``yes``. Raises CannotDo."""
    _reject_configured(settings, name)
    found = find(stored_keys(settings), name)
    if not yes:
        if not sys.stdin.isatty():
            raise CannotDo(f"Add --yes to revoke the key '{found.name}' without a question.")
        typer.confirm(f"Revoke the key '{found.name}' ({found.prefix}…) for good?", abort=True, err=True)
    key = _change(settings, lambda keys: revoke_key(keys, found.id, time.time()), "key_revoked")
    _explain(f"Revoked the key '{key.name}' ({key.id}). Running servers refuse it within a second.")


def _secret_of_input() -> str:
    secret = sys.stdin.readline().strip()
    if not SHORTEST <= len(secret) <= 256 or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CannotDo(f"Write the key to standard input: {SHORTEST} to 256 characters without spaces.")
    return secret


def _print_secret(key: ClientKey, secret: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json(as_json_object(key, "state") | ({} if secret is None else {"key": secret}))
    elif secret is not None:
        typer.echo(secret)
    if secret is not None:
        _explain("Store the key now: it is not shown again.")


def _explain(text: str) -> None:
    typer.echo(text, err=True)


def _check_name(settings: Settings, name: str) -> None:
    if name in settings.keys:
        raise CannotDo(f"The settings have a key '{name}' already ([keys.{name}]). Choose another name.")


def _reject_configured(settings: Settings, name: str) -> None:
    if any(name in (key.name, key.id) for key in configured_keys(settings)) and not _is_stored(settings, name):
        raise CannotDo(f"The key '{name}' is in the settings. Change it there, and run 'openai-dify-proxy reload'.")


def _is_stored(settings: Settings, name: str) -> bool:
    return any(name in (key.name, key.id) and key.revoked_at is None for key in stored_keys(settings))


def find(keys: Keys, name: str) -> ClientKey:
    """Return the key with this name or id. Raises CannotDo."""
    try:
        return find_key(keys, name)
    except KeyProblem as problem:
        raise CannotDo(str(problem)) from None


def stored_keys(settings: Settings) -> Keys:
    """Return the keys in the state. Raises CannotDo."""
    if not is_shared(settings.state_url.get_secret_value()):
        return ()

    async def read() -> Keys:
        async with open_state(settings) as store:
            file = await read_keys(store)
            return () if file is None else file.keys

    return asyncio.run(read())


def _change(
    settings: Settings, change: Callable[[Keys], tuple[Keys, ClientKey]], action: str, **facts: object
) -> ClientKey:
    """Change the stored keys, and record that in the audit log, which is checked first. Raises CannotDo."""
    audit = AuditLog(settings.audit_log)
    problem = audit.problem()
    if problem is not None:
        raise CannotDo(f"AUDIT_LOG cannot be written, so nothing was changed: {problem}. Set AUDIT_LOG.")

    async def run() -> ClientKey:
        async with open_state(settings) as store:
            return await change_keys(store, change)

    key = asyncio.run(run())
    audit.record(action, user_name(), key=key.name, id=key.id, **facts)
    return key


@asynccontextmanager
async def open_state(settings: Settings, timeout: float = TIMEOUT) -> AsyncIterator[Store]:
    """Open the state, whose runs may take ``timeout`` seconds. A failure in the block raises CannotDo."""
    url = settings.state_url.get_secret_value()
    if not is_shared(url):
        raise CannotDo(
            "STATE_URL is memory://, which servers do not share with this command. Keys need sqlite:///path, redis:// "
            "or valkey://. Keys in the settings (API_KEYS, [keys.<name>]) work with memory:// too."
        )
    store = await open_store(
        url, max_entries=settings.state_max_entries, max_bytes=settings.state_max_bytes, timeout=timeout
    )
    try:
        yield store
    except StateUnavailable as error:
        raise CannotDo(f"The state cannot be used: {error}. Check STATE_URL.") from None
    except KeyProblem as problem:
        raise CannotDo(str(problem)) from None
    finally:
        await store.close()


def has_stored_keys(settings: Settings) -> bool | None:
    """Return whether the state has or had client keys; None if it cannot be read."""
    if not is_shared(settings.state_url.get_secret_value()):
        return False

    async def read() -> bool:
        async with open_state(settings, STATE_TIMEOUT) as store:
            return await read_version(store) is not None

    try:
        return asyncio.run(read())
    except CannotDo:
        return None
