"""The names in links to artifacts: an id that cannot be guessed, the time at which the link expires, and a signature.

The extension after a name is informative only, and is not signed.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from secrets import token_bytes
from typing import Final

from msgspec import Struct

from openai_dify_proxy.translate.history import KIND, STORED, keyed_hash

PATH: Final = "/artifacts/"

_ID_BYTES: Final = 16
_TIME_BYTES: Final = 5
_SIGNATURE_BYTES: Final = 15
"""All three together are a multiple of three, so that no two texts encode the same name."""

_NAME = re.compile(r"([0-9A-Za-z_-]{48})\.[0-9a-z]{1,10}")
_LINK = re.compile(rf"https?://[^/?#]{{1,300}}(?:/[^?#]{{0,300}})?{PATH}([^/?#]{{50,60}})")


class ArtifactName(Struct, frozen=True):
    """A valid name. ``id`` is in hex, ``expires`` in seconds since 1970."""

    id: str
    expires: int


def new_name(expires: int) -> ArtifactName:
    return ArtifactName(token_bytes(_ID_BYTES).hex(), expires)


def sign(secret: bytes, name: ArtifactName) -> str:
    """Return the signed text of a name, without an extension."""
    body = bytes.fromhex(name.id) + name.expires.to_bytes(_TIME_BYTES)
    return urlsafe_b64encode(body + _signature(secret, body)).decode()


def verify(secret: bytes, text: str) -> ArtifactName | None:
    """Return the name that ``text``, a signed text with an extension, stands for; None if the proxy did not sign it."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    data = urlsafe_b64decode(match[1])
    body, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(secret, body)):
        return None
    return ArtifactName(body[:_ID_BYTES].hex(), int.from_bytes(body[_ID_BYTES:]))


def text_in(url: str) -> str | None:
    """Return the text in the place of a name in a URL; None if it has no such place."""
    match = _LINK.fullmatch(url)
    return match[1] if match is not None else None


def _signature(secret: bytes, body: bytes) -> bytes:
    return keyed_hash(secret, (KIND, "artifact-link"), (STORED, body.hex()))[:_SIGNATURE_BYTES]
