"""What the front door reads of a request's head: its target, and the framing of its body."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

import httptools
from msgspec import Struct

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

END_OF_HEAD = b"\r\n\r\n"


class Framing(Struct, frozen=True):
    """The body that a request's head declares."""

    length: int | None = 0
    """Bytes; None if the body is chunked."""
    expects_continue: bool = False
    """Whether the client waits for ``100 Continue`` before it sends the body."""


def read_framing(headers: Headers) -> Framing | None:
    """Return the framing of a request's body; None if it is ambiguous, as the host is if there are two."""
    length: int | None = 0
    expects_continue = False
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                return None
            length = None
        elif name == b"expect" and value.lower() == b"100-continue":
            expects_continue = True
    return Framing(length, expects_continue) if hosts <= 1 else None


class Target(Struct, frozen=True):
    """The path and the query of a request, as ASGI's scope has them."""

    path: str
    raw_path: bytes
    query: bytes


@lru_cache(maxsize=64)
def parse_target(target: bytes) -> Target:
    """Parse the target of a request line. Raises HttpParserInvalidURLError."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    return Target(unquote(path) if "%" in path else path, url.path, url.query or b"")


def head_of_body(length: int | None) -> bytes:
    """Return a head that declares a body of this length; None is a chunked one."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"POST / HTTP/1.1\r\n" + framing + END_OF_HEAD
