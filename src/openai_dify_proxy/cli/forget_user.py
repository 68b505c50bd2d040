"""The command ``keys forget-user``: erase the data of one end user."""

from __future__ import annotations

import sqlite3
import sys
import time
from hashlib import sha256

import typer
from msgspec import to_builtins

from openai_dify_proxy.cli.key_commands import TIMEOUT, find, open_state, stored_keys
from openai_dify_proxy.cli.output import print_json, run_shown
from openai_dify_proxy.cli.running import CannotDo
from openai_dify_proxy.cli.storage import user_name
from openai_dify_proxy.files.artifacts.opening import open_storage
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.keys.audit import AuditLog
from openai_dify_proxy.keys.configured import configured_keys
from openai_dify_proxy.responses.event_log import EventLogs
from openai_dify_proxy.responses.forgetting import KINDS, EndUserEraser, Forgotten
from openai_dify_proxy.responses.response_store import ResponseStore
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import GuardedStore, StateUnavailable
from openai_dify_proxy.state.owned import owned_keys
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller, caller_of_client_key
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.upstream.control_calls import ControlCalls
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient


def forget_user(settings: Settings, key: str, end_user: str, *, yes: bool, as_json: bool) -> bool:
    """Erase the data of an end user, and return whether nothing is left in Dify. Raises CannotDo and ProxyError."""
    configured = configured_keys(settings)
    found = find((*stored_keys(settings), *configured), key)
    if not yes:
        if not sys.stdin.isatty():
            raise CannotDo("Add --yes to erase the data without a question.")
        typer.confirm(f"Erase all data of the end user '{end_user}' of the key '{found.name}'?", abort=True, err=True)
    audit = AuditLog(settings.audit_log)
    problem = audit.problem()
    if problem is not None:
        raise CannotDo(f"AUDIT_LOG cannot be written, so nothing was erased: {problem}. Set AUDIT_LOG.")
    caller = caller_of_client_key(found, configured=found.id in {key.id for key in configured})
    forgotten = run_shown("Erasing", _erase(settings, caller, end_user))
    digest = sha256(end_user.encode()).hexdigest()[:16]
    audit.record("end_user_forgotten", user_name(), key=found.name, id=found.id, end_user=digest)
    if as_json:
        print_json(to_builtins(forgotten))
    else:
        typer.echo(
            f"Erased {forgotten.responses} responses, {forgotten.conversations} conversation objects, "
            f"{forgotten.files} files, {forgotten.artifacts} files of apps, "
            f"and {forgotten.dify_conversations} conversations in Dify."
        )
    for text in forgotten.problems:
        typer.echo(f"Not erased in Dify: {text}", err=True)
    return not forgotten.problems


async def _erase(settings: Settings, caller: Caller, end_user: str) -> Forgotten:
    http = HttpClient(connect_timeout=settings.connect_timeout)
    try:
        async with open_state(settings, 2 * TIMEOUT) as state:
            conversations = Conversations(GuardedStore(state), ttl=settings.conversation_ttl, now=time.time)
            secret = await conversations.secret()
            if secret is None:
                raise CannotDo("The state cannot be used. Check STATE_URL.")
            stored = ResponseStore(conversations)
            files = StoredFiles(conversations.store, conversations.secret, ttl=settings.file_ttl, now=time.time)
            dify = DifyClient(http, ControlCalls(lambda _: False))
            plain = settings.end_user_id == "plain"
            artifacts = open_storage(settings)
            eraser = EndUserEraser(stored, EventLogs(conversations), files, artifacts, dify, plain=plain)
            keys = await _keys_of(settings, caller)
            return await eraser.erase(caller, end_user, secret, keys, Apps(settings).all.values())
    finally:
        await http.close()


async def _keys_of(settings: Settings, caller: Caller) -> list[str]:
    try:
        return await owned_keys(settings.state_url.get_secret_value(), caller.id, KINDS)
    except (OSError, sqlite3.Error) as error:
        raise StateUnavailable(str(error)) from None
