"""Scopes, which conversations never cross, and the fingerprints of histories in them."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from openai_dify_proxy.translate.history import (
    CHAT,
    END_USER,
    FILE,
    INPUTS,
    KIND,
    SCOPE,
    STORED,
    SYSTEM,
    Fingerprint,
    KeyedHasher,
    keyed_hash,
    replies,
)
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import MAX_CACHED, Caller
from openai_dify_proxy.upstream.dify import DifyApp

MAX_CACHED_TEXT = 4096
"""Characters of a system message and inputs whose hash is cached."""


class Scope(Struct, frozen=True):
    """Caller, end user, app and app key, which conversations never cross. Fingerprints extend ``link``."""

    secret: bytes
    link: bytes

    def key(self, kind: str, conversation_id: str) -> str:
        return f"{kind}:{_hasher(self.secret, self.link, kind).hash(STORED, conversation_id).hex()}"


@lru_cache(maxsize=4096)
def _hasher(secret: bytes, link: bytes, kind: str) -> KeyedHasher:
    return KeyedHasher(secret, (KIND, kind), link=link)


def scope_of(secret: bytes, caller: Caller, end_user: str | None, app: App) -> Scope:
    """Return the scope of a caller's end user and an app."""
    parts = secret, caller.id, end_user, app.name, app.dify
    if end_user is not None and len(end_user) > MAX_CACHED:
        return _make_scope.__wrapped__(*parts)
    return _make_scope(*parts)


@lru_cache(maxsize=4096)
def _make_scope(secret: bytes, caller: str, end_user: str | None, app: str, dify: DifyApp) -> Scope:
    whose = () if end_user is None else ((END_USER, end_user),)
    key = (SCOPE, app), (SCOPE, dify.url), (SCOPE, dify.key)
    return Scope(secret, keyed_hash(secret, (SCOPE, caller), *whose, *key))


def fingerprint_of(scope: Scope, request: TurnRequest, system: str, inputs: str, *, by_chat: bool) -> Fingerprint:
    """Return the fingerprint of all messages before the request's question.

    ``system`` and ``inputs`` are those that reach Dify. ``by_chat`` is for clients that may rewrite the user's messages
    but name the chat. The files of the body count like its inputs: they belong to no message.
    """
    secret, stored = scope.secret, request.stored_history
    if stored is not None:
        known = stored.scope == scope.link
        link = stored.link if known else keyed_hash(secret, (STORED, stored.name), link=scope.link)
        fingerprint = Fingerprint(secret, link)
        fingerprint.add_messages(request.history)
        return fingerprint
    files = [(FILE, file.identity) for file in request.files] if request.files else ()
    if by_chat:
        fingerprint = Fingerprint(secret, scope.link)
        fingerprint.add((CHAT, request.chat_id or ""), (INPUTS, inputs), *files)
        fingerprint.add_messages(replies(request.history))
    else:
        if not files and len(system) + len(inputs) <= MAX_CACHED_TEXT:
            fingerprint = _begun(secret, scope.link, system, inputs).copy()
        else:
            fingerprint = Fingerprint(secret, scope.link)
            fingerprint.add((SYSTEM, system), (INPUTS, inputs), *files)
        if request.history:
            fingerprint.add_messages(request.history)
    return fingerprint


@lru_cache(maxsize=1024)
def _begun(secret: bytes, link: bytes, system: str, inputs: str) -> Fingerprint:
    fingerprint = Fingerprint(secret, link)
    fingerprint.add((SYSTEM, system), (INPUTS, inputs))
    return fingerprint
