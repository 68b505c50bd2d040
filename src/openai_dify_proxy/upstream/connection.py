"""One connection to an upstream, on httptools' parser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import httptools

from openai_dify_proxy.upstream.exchange import Exchange

MAX_HEAD_BYTES = 64 * 1024
"""Bytes that may arrive in a row without a byte of a body: a head, trailers, or the extensions of a chunk."""

_KEPT_HEADERS = {
    name.encode(): name
    for name in (
        "content-length",
        "content-type",
        "location",
        "retry-after",
        "transfer-encoding",
        "x-stream-error",
        "x-version",
    )
}
"""The headers that are read; the others would take 1 kB of each open stream."""

TLS_ALERT = b"\x15\x03"
"""The first bytes of a TLS alert, with which some TLS servers answer plain HTTP."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection, serving one exchange at a time. All connections of a client read into the same ``buffer``."""

    __slots__ = (
        "_buffer",
        "_complete",
        "_exchange",
        "_forget",
        "_held",
        "_keep_alive",
        "_largest_read",
        "_parser",
        "_parts",
        "_paused",
        "_received_headers",
        "_release",
        "_silent",
        "_without_body",
        "_yielded",
        "on_body",
        "on_header",
        "reused",
        "transport",
    )

    def __init__(
        self,
        buffer: memoryview,
        release: Callable[[UpstreamConnection], None],
        forget: Callable[[UpstreamConnection], None],
    ) -> None:
        self._buffer = buffer
        self._largest_read = len(buffer)
        self._release = release
        self._forget = forget
        self._exchange: Exchange | None = None
        self._received_headers: dict[bytes, bytes] = {}
        self.on_header = self._received_headers.__setitem__
        """A callback of the parser, which needs no Python code."""
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        """A callback of the parser: the parts are delivered once per read, not once per chunk."""
        self._parser = httptools.HttpResponseParser(self)
        self._without_body = 0  # bytes since the last one of a body
        self._silent = True
        self._complete = False
        self._keep_alive = False
        self._held = False
        self._yielded = False
        self._paused = False
        self.reused = False
        self.transport: asyncio.Transport | None = None

    def start(self, exchange: Exchange, request: Sequence[bytes | bytearray]) -> None:
        self._exchange = exchange
        self._silent = True
        self._complete = False
        self._without_body = 0
        if self.transport is None or self.transport.is_closing():
            self._finish(broken=True)
            return
        self.transport.writelines(request)

    def pause(self) -> None:
        self._held = True
        self._pause_or_resume()

    def resume(self) -> None:
        if self._held:
            self._held = False
            self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        paused = self._held or self._yielded
        if paused != self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def abort(self) -> None:
        self._exchange = None
        if self.transport is not None:
            self.transport.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # bytes that no request asked for
            return
        data = self._buffer[:nbytes]
        if self._silent and data[:2] == TLS_ALERT:
            exchange.answered_in_tls = True
        self._silent = False
        try:
            if exchange.status is None:
                self._parse_head(exchange, data)
            else:
                self._parser.feed_data(data)
            if self._parts or self._complete:
                self._without_body = 0
            else:
                self._count_without_body(exchange, nbytes)
        except httptools.HttpParserError:
            if self._parts:
                exchange.on_body(self._parts, nbytes)
            self._finish(broken=True)
            self.abort()
            return
        if self._parts:
            exchange.on_body(self._parts, nbytes)
        if self._complete:
            self._finish(broken=False)
        elif nbytes < self._largest_read:
            exchange.on_read()
        else:
            self._yield(exchange)

    def _yield(self, exchange: Exchange) -> None:
        """Read on in the next iteration of the loop: the transport would read as long as there is more."""
        self._yielded = True
        self._pause_or_resume()
        exchange.on_read()
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        self._yielded = False
        self._pause_or_resume()

    def _parse_head(self, exchange: Exchange, data: memoryview) -> None:
        """Parse a head up to its limit, and what follows it. Raises HttpParserError, also beyond that limit."""
        room = MAX_HEAD_BYTES - self._without_body
        self._parser.feed_data(data[:room])
        if len(data) > room:
            if exchange.status is None:
                exchange.head_too_large = True
                raise httptools.HttpParserError("the head is too large")
            self._parser.feed_data(data[room:])
            self._without_body -= room  # only the bytes after the limit of the head count

    def _count_without_body(self, exchange: Exchange, size: int) -> None:
        """Count bytes that held no body. Raises HttpParserError if too many follow a head."""
        self._without_body += size
        if exchange.status is not None and self._without_body > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("too many bytes without a body")

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget(self)
        self.transport = None
        if self._exchange is not None:
            received = self._exchange.headers
            sized = "content-length" in received or "transfer-encoding" in received
            self._finish(broken=exc is not None or self._exchange.status is None or sized)

    def _finish(self, *, broken: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        reused = self.reused
        if not broken and self._keep_alive and self.transport is not None:
            if self._held:
                self.resume()
            self.reused = True
            self._release(self)
        elif self.transport is not None:
            self.transport.abort()
        exchange.on_end(broken=broken, reused=reused, silent=self._silent)

    def _take_headers(self) -> dict[str, str]:
        """Return the headers or trailers that have arrived, as far as they are read."""
        headers = {}
        for name, value in self._received_headers.items():
            kept = _KEPT_HEADERS.get(name.lower())
            if kept is not None:
                headers[kept] = value.decode("latin-1")
        self._received_headers.clear()
        return headers

    # httptools

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers = self._take_headers()
        if status >= 200 and self._exchange is not None:
            self._exchange.on_headers(status, headers)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            if self._received_headers and self._exchange is not None:  # trailers
                self._exchange.headers |= self._take_headers()
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser resets it after the message
