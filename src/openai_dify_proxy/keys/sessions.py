"""Sessions of the console: signed cookies that stand for a client key. Pure.

A cookie holds the hash of the key, the end of the session, and a signature with the secret of the state. So every
process knows the sessions of all others, none are stored, and the session of a revoked key ends with it.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct

SESSION_SECONDS = 12 * 3600

_HASH_BYTES = 32
_SIGNED = struct.Struct(f">{_HASH_BYTES}sQ")
_COOKIE = re.compile(r"[A-Za-z0-9_-]{96}")
_PURPOSE = b"console session "


def sign_session(secret: bytes, key_hash: bytes, expires: int) -> str:
    """Return the value of a cookie; ``key_hash`` is the SHA-256 of the key, ``expires`` in seconds since the epoch."""
    signed = _SIGNED.pack(key_hash, expires)
    return base64.urlsafe_b64encode(signed + _signature(secret, signed)).decode()


def read_session(secret: bytes, cookie: str, now: float) -> bytes | None:
    """Return the hash of the key, or None for a cookie that is not valid at the time ``now``."""
    if not _COOKIE.fullmatch(cookie):
        return None
    data = base64.urlsafe_b64decode(cookie)
    signed, signature = data[: _SIGNED.size], data[_SIGNED.size :]
    if not hmac.compare_digest(signature, _signature(secret, signed)):
        return None
    key_hash, expires = _SIGNED.unpack(signed)
    return bytes(key_hash) if now < expires else None


def _signature(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + signed, "sha256")
