"""Client keys as they are stored: with a hash instead of the secret.

A secret has 160 random bits, so its plain SHA-256 cannot be reversed, and looking the hash of a received key up in a
dictionary reveals nothing by its duration: a caller cannot choose hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from secrets import token_hex
from typing import Annotated

from msgspec import Meta, Struct

from openai_dify_proxy.keys.limits import NO_LIMITS, KeyLimits

SECRET_PREFIX = "sk-dify-"  # noqa: S105 - the part that all keys share
SHOWN = 12
"""Characters of a key that are stored and shown; the last four of them are random."""

SHORTEST = 16
"""A key with fewer characters, chosen by an operator, can be guessed."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class OldSecret(Struct, frozen=True):
    """A replaced secret, which works until ``until`` (seconds since the epoch)."""

    hash: Hash
    until: float


class ClientKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client key.

    ``id`` is the caller's identity, which owns conversations, responses and files, and survives rotation. ``prefix`` is
    the beginning of the secret. ``models`` are names or patterns of the allowed models (None: all). ``end_user`` is the
    end user that all requests act for. Times are in seconds since the epoch.
    """

    id: str
    name: str
    hash: Hash
    prefix: str = ""
    label: str = ""
    models: tuple[str, ...] | None = None
    end_user: str | None = None
    limits: KeyLimits = NO_LIMITS
    admin: bool = False
    created_at: float = 0
    expires_at: float | None = None
    revoked_at: float | None = None
    previous: tuple[OldSecret, ...] = ()

    def works(self, now: float) -> bool:
        """Return whether the key is valid at the time ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_secret() -> str:
    """Return a new random key."""
    return SECRET_PREFIX + token_hex(20)


def new_id() -> str:
    """Return a new identity of a caller."""
    return f"key-{token_hex(8)}"


def hash_of(secret: str) -> str:
    """Return the hash of a key, as it is stored."""
    return sha256(secret.encode()).hexdigest()


def id_of_secret(secret: str) -> str:
    """Return the identity of a caller that is known by the key itself, as those of ``API_KEYS`` are."""
    return f"key-{hash_of(secret)[:16]}"


def shown_prefix(secret: str) -> str:
    """Return the beginning of a key; of a short one, less than a third."""
    return secret[: min(SHOWN, len(secret) // 4)]


def allows(models: Sequence[str] | None, *names: str) -> bool:
    """Return whether one of ``names`` is among the allowed ``models``, which may be patterns."""
    return models is None or any(fnmatchcase(name, pattern) for pattern in models for name in names)
