"""Callers, the authenticated identities behind requests, and their end users in Dify."""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

from openai_dify_proxy.keys.client_key import ClientKey, allows, id_of_secret
from openai_dify_proxy.keys.limits import NO_LIMITS, KeyLimits

MAX_DIFY_USER = 255
"""Characters in a ``user``; Dify fails on longer ones."""

MAX_CACHED = 256
"""Characters in an end user's name; the ``user`` of longer names is not cached."""


class Caller(Struct, frozen=True):
    """An authenticated caller. ``id`` is stable and holds no secret.

    ``dify_key`` is the Dify key of the request, if it came with one. ``end_user`` is the end user that the client key
    is pinned to; it overrides the request's. ``name``, ``models``, ``limits`` and ``admin`` are those of the key.
    ``configured`` is false for the keys in the state.
    """

    id: str
    dify_key: str | None = None
    end_user: str | None = None
    limits: KeyLimits = NO_LIMITS
    admin: bool = False
    name: str | None = None
    models: tuple[str, ...] | None = None
    configured: bool = True

    def may_use(self, *names: str) -> bool:
        """Return whether the caller may use the model with these names."""
        return allows(self.models, *names)


ANONYMOUS = Caller("anonymous")


def caller_of_key(key: str, end_user: str | None = None) -> Caller:
    """Return the caller that holds a client key without a name, identified by that key."""
    return Caller(id_of_secret(key), end_user=end_user)


def caller_of_client_key(key: ClientKey, *, configured: bool) -> Caller:
    """Return the caller that holds a client key."""
    return Caller(
        key.id,
        end_user=key.end_user,
        limits=key.limits,
        admin=key.admin,
        name=key.name,
        models=key.models,
        configured=configured,
    )


def caller_of_dify_key(key: str) -> Caller:
    """Return the caller of a request with its own Dify key, identified by that key."""
    return Caller(f"dify-{_digest(key)}", key)


def dify_user(secret: bytes, caller: Caller, end_user: str | None) -> str:
    """Return Dify's ``user``, which owns conversations, files and running turns.

    It depends only on the caller and the end user, and cannot be guessed without ``secret``.
    """
    if end_user is not None and len(end_user) > MAX_CACHED:
        return _derive(secret, caller.id, end_user)
    return _derive_cached(secret, caller.id, end_user)


def user_in_dify(secret: bytes, caller: Caller, end_user: str | None, *, plain: bool) -> str:
    """Return Dify's ``user``: with ``plain`` names (``END_USER_ID``) the end user itself, where that is safe."""
    plain = plain and caller.configured and caller.dify_key is None
    return (
        end_user
        if plain and end_user is not None and len(end_user) <= MAX_DIFY_USER
        else dify_user(secret, caller, end_user)
    )


def _derive(secret: bytes, caller: str, end_user: str | None) -> str:
    name = f"{len(caller)}:{caller}:{end_user or ''}"
    return f"proxy-{hmac.digest(secret, name.encode(), 'sha256').hex()[:40]}"


_derive_cached = lru_cache(maxsize=4096)(_derive)


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:16]
