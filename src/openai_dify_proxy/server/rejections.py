"""The errors with which the front door rejects requests before a handler sees them, and their responses."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from openai_dify_proxy.errors import BadHttp, HeadTooLarge, ProxyError, RequestTimeout, TooManyConnections, UrlTooLong
from openai_dify_proxy.server.limits import HttpLimits
from openai_dify_proxy.translate.openai.errors import encode_error

TLS_HANDSHAKE = b"\x16\x03"
"""The first bytes of a client that uses https://."""


def bad_http(data: bytes = b"") -> ProxyError:
    """Return the error for a request that begins with ``data``."""
    if data.startswith(TLS_HANDSHAKE):
        return BadHttp("The request is TLS, not HTTP. Use http:// in the base URL of the client.")
    return BadHttp("The request is not valid HTTP/1.1.")


def too_large(url: bytes, limits: HttpLimits) -> ProxyError:
    """Return the error for a head beyond the limits. ``url`` is what was read of its URL."""
    if len(url) > limits.url_bytes:
        return UrlTooLong(f"The URL is longer than {limits.url_bytes} bytes. Send data in the body.")
    return HeadTooLarge(f"The request line and headers are larger than {limits.head_bytes} bytes. Send fewer headers.")


def too_many_headers(limits: HttpLimits) -> ProxyError:
    return HeadTooLarge(f"The request has more than {limits.headers} headers. Send fewer headers.")


def tiny_chunks() -> ProxyError:
    """Return the error for a chunked body whose framing is larger than a head may be."""
    return HeadTooLarge("The request body has too many tiny chunks. Send larger ones.")


def slow_head(limits: HttpLimits) -> ProxyError:
    return RequestTimeout(f"The request head took longer than {limits.head_timeout:g} s. Send it at once.")


def slow_body(limits: HttpLimits) -> ProxyError:
    return RequestTimeout(f"The request body arrived at less than {limits.body_rate} bytes/s. Send it faster.")


def too_many_connections() -> ProxyError:
    return TooManyConnections("The server has too many open connections. Try again.", retry_after=1)


def response(error: ProxyError) -> bytes:
    """Return the response with ``error``, after which the connection is closed."""
    body = encode_error(error)
    retry = b"" if error.retry_after is None else b"retry-after: %d\r\n" % error.retry_after
    return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        STATUS_LINE[error.status],
        len(body),
        retry,
        body,
    )
