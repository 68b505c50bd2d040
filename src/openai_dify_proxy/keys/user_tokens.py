"""End users in signed tokens: JSON Web Tokens with an HMAC (HS256), as Open WebUI sends them for its users. Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Any

from msgspec import Struct, json

from openai_dify_proxy.errors import AuthenticationFailed
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_TOKEN = 4096
LEEWAY = 30
"""Seconds by which the clocks of both servers may differ."""

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


class _Header(Struct, frozen=True):
    alg: str
    crit: Any = None


class _Claims(Struct, frozen=True):
    sub: str
    exp: float
    nbf: float | None = None


_HEADER = json.Decoder(_Header)
_CLAIMS = json.Decoder(_Claims)


def end_user_of_token(token: str, secret: bytes, now: float) -> str:
    """Return the end user (``sub``) of a token. ``now`` is in seconds since the epoch. Raises AuthenticationFailed."""
    match = _PARTS.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if match is None:
        raise _rejected(f"is not a signed token of at most {MAX_TOKEN} characters")
    try:
        header = _HEADER.decode(_decoded(match[1]))
        signature = _decoded(match[3])
    except (*UNREADABLE, binascii.Error):
        raise _rejected("cannot be read") from None
    if header.alg != "HS256" or header.crit is not None:
        raise _rejected("is not signed with HS256")
    if not hmac.compare_digest(signature, hmac.digest(secret, f"{match[1]}.{match[2]}".encode(), "sha256")):
        raise _rejected("is not signed with this server's secret")
    try:
        claims = _CLAIMS.decode(_decoded(match[2]))
    except (*UNREADABLE, binascii.Error):
        raise _rejected("lacks a user or an expiry") from None
    if claims.exp + LEEWAY <= now:
        raise _rejected("has expired")
    if claims.nbf is not None and claims.nbf - LEEWAY > now:
        raise _rejected("is not valid yet")
    if not claims.sub.strip():
        raise _rejected("lacks a user or an expiry")
    return claims.sub


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)


def _rejected(reason: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"The signed end user {reason}. Check that both servers have the same secret and the right time.",
        code="invalid_end_user_token",
    )
