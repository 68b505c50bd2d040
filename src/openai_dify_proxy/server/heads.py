"""What the front door reads of a request's head: its target, its host, and the length of its body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

END_OF_HEAD = b"\r\n\r\n"


def declared_length(headers: Headers) -> int | None:
    """Return the length of a request's body in bytes, or None if it is chunked."""
    length: int | None = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            return None
    return length


def is_unambiguous(headers: Headers) -> bool:
    """Return whether the request has one host at most, and a body that is framed as it is encoded."""
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            return False
    return hosts <= 1


def set_target(scope: HTTPScope, target: bytes) -> None:
    """Set the path and the query of a request. Raises HttpParserInvalidURLError."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    scope["path"] = unquote(path) if "%" in path else path
    scope["raw_path"] = url.path
    scope["query_string"] = url.query or b""


def head_of_body(length: int | None) -> bytes:
    """Return a head that declares a body of this length; None is a chunked one."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"POST / HTTP/1.1\r\n" + framing + END_OF_HEAD
