"""Who asks: the authenticated identity behind a request, and the Dify end users of it."""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

MAX_DIFY_USER = 255
"""Characters of a ``user`` that Dify takes; one more and it fails."""

MAX_REMEMBERED = 256
"""Characters of an end user's name, beyond which it is not held for the next request."""


class Caller(Struct, frozen=True):
    """``id`` is stable and holds no secret; ``dify_key`` is the Dify key that the request itself brought.

    ``end_user`` is the end user that the client's key is pinned to, whatever the request says.
    """

    id: str
    dify_key: str | None = None
    end_user: str | None = None


ANONYMOUS = Caller("anonymous")


def caller_of_key(key: str, end_user: str | None = None) -> Caller:
    """The holder of one of the server's client keys."""
    return Caller(f"key-{_digest(key)}", end_user=end_user)


def caller_of_dify_key(key: str) -> Caller:
    """Somebody who brings a Dify key along; it is all that is known of them."""
    return Caller(f"dify-{_digest(key)}", key)


def dify_user(secret: bytes, caller: Caller, end_user: str | None) -> str:
    """Dify's ``user``, which owns conversations, files and running turns.

    The same caller and end user always give the same one, and nobody who lacks ``secret`` can guess another's. Dify
    takes 255 characters at most.
    """
    if end_user is not None and len(end_user) > MAX_REMEMBERED:
        return _derive(secret, caller, end_user)
    return _derive_once(secret, caller, end_user)


def _derive(secret: bytes, caller: Caller, end_user: str | None) -> str:
    name = f"{len(caller.id)}:{caller.id}:{end_user or ''}"
    return f"proxy-{hmac.digest(secret, name.encode(), 'sha256').hex()[:40]}"


_derive_once = lru_cache(maxsize=4096)(_derive)


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:16]
