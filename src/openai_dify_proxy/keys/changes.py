"""Changes to the list of client keys. Pure: times and secrets are arguments."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from openai_dify_proxy.keys.client_key import ClientKey, OldSecret, hash_of, shown_prefix

MAX_KEYS = 10_000
MAX_OLD_SECRETS = 5

Keys = tuple[ClientKey, ...]


class KeyProblem(Exception):
    """A change that is not possible. The text is for the operator."""


def find_key(keys: Sequence[ClientKey], name: str) -> ClientKey:
    """Return the key with this name or id: the one that is not revoked, else the latest. Raises KeyProblem."""
    found = [key for key in keys if name in (key.name, key.id)]
    if not found:
        known = ", ".join(sorted({key.name for key in keys if key.revoked_at is None})[:20]) or "none"
        raise KeyProblem(f"There is no key {name!r}. Keys: {known}.")
    return max(found, key=lambda key: (key.revoked_at is None, key.created_at))


def add_key(keys: Sequence[ClientKey], key: ClientKey) -> Keys:
    """Add a key. Raises KeyProblem if its name or secret is in use, or if there are too many keys."""
    active = [other for other in keys if other.revoked_at is None]
    if any(key.name == other.name for other in active):
        raise KeyProblem(f"There is a key {key.name!r} already. Choose another name, or rotate or revoke it.")
    if any(key.id == other.id for other in active) or any(key.hash == other.hash for other in keys):
        raise KeyProblem("There is a key with this secret already.")
    if len(keys) >= MAX_KEYS:
        keys = _without_oldest_revoked(keys)
    return (*keys, key)


def _without_oldest_revoked(keys: Sequence[ClientKey]) -> Keys:
    revoked = [key for key in keys if key.revoked_at is not None]
    if not revoked:
        raise KeyProblem(f"There are {MAX_KEYS} keys, which is the limit. Revoke one first.")
    oldest = min(revoked, key=lambda key: key.revoked_at or 0)
    return tuple(key for key in keys if key is not oldest)


def revoke_key(keys: Sequence[ClientKey], name: str, now: float) -> tuple[Keys, ClientKey]:
    """Revoke a key, and return it. Raises KeyProblem if it is unknown or revoked."""
    key = _active(keys, name)
    revoked = structs.replace(key, revoked_at=now, previous=())
    return _replace(keys, key, revoked), revoked


def rotate_key(keys: Sequence[ClientKey], name: str, secret: str, now: float, grace: float) -> tuple[Keys, ClientKey]:
    """Replace the secret of a key. The old one works for ``grace`` more seconds, and its identity stays.

    Raises KeyProblem if the key is unknown or revoked.
    """
    key = _active(keys, name)
    old = [secret for secret in key.previous if secret.until > now]
    if grace > 0:
        old.append(OldSecret(key.hash, now + grace))
    rotated = structs.replace(
        key, hash=hash_of(secret), prefix=shown_prefix(secret), previous=tuple(old[-MAX_OLD_SECRETS:])
    )
    return _replace(keys, key, rotated), rotated


def _active(keys: Sequence[ClientKey], name: str) -> ClientKey:
    key = find_key(keys, name)
    if key.revoked_at is not None:
        raise KeyProblem(f"The key {name!r} is revoked.")
    return key


def _replace(keys: Sequence[ClientKey], old: ClientKey, new: ClientKey) -> Keys:
    return tuple(new if key is old else key for key in keys)
