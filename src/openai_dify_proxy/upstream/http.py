"""The HTTP/1.1 client for Dify and IPFS, on httptools.

A turn waits for upstream bytes, for deadlines and for its client's disconnect at the same time. Therefore an
``Exchange`` collects what arrives and wakes its reader, and others may wake the reader too. The reader is a coroutine
in ``wait``, or a ``listener``, which is called inside the network read: the hot path has no task and no future.

A Dify API process serves ten connections, idle ones included, and up to 1.13 it drops idle ones after 2 s. Therefore
few idle connections stay open, for one second. A request is sent a second time only if the upstream was probably
closing the connection: a reused one that died within half a second, before any byte of an answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import cast
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.connection_errors import ServerAddress, describe_failure
from openai_dify_proxy.upstream.connection_errors import translate_connect_error

IDLE_SECONDS = 1.0
MAX_IDLE = 4
SURPLUS_SECONDS = 0.05
"""How long an idle connection beyond ``MAX_IDLE`` stays open: under load the next request reuses it at once."""

RESEND_WINDOW = 0.5
LARGE_REQUEST = 64 * 1024
"""Bytes; the memory of larger requests is freed once they can no longer be sent again."""

READ_BYTES = 48 * 1024
"""The most bytes that one read returns. A client that does not read holds the frames of one read in memory."""

HIGH_WATER = 64 * 1024
"""Unread bytes at which reading from the upstream pauses."""

MAX_HEAD_BYTES = 64 * 1024
"""Bytes that may arrive in a row without a byte of a body: a head, trailers, or the extensions of a chunk."""

TLS_ALERT = b"\x15\x03"
"""The first bytes of a TLS alert, with which some TLS servers answer plain HTTP."""


class Origin(Struct, frozen=True):
    """The scheme, host and port of a connection."""

    scheme: str
    host: str
    port: int


class Endpoint(Struct, frozen=True):
    """A parsed URL: ``path`` includes the query, ``authority`` is the Host header."""

    origin: Origin
    authority: str
    path: str


def parse_url(url: str) -> Endpoint:
    """Parse an absolute http or https URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Endpoint(Origin(parts.scheme, parts.hostname or "", port), parts.netloc.rpartition("@")[2], path or "/")


class CannotConnect(Exception):
    """No connection to ``origin`` was made, so nothing was sent. The cause is the error of the attempt.

    ``timeout`` is the attempt's limit in seconds.
    """

    def __init__(self, origin: Origin, timeout: float) -> None:
        super().__init__(f"Cannot connect to {origin.host}:{origin.port}.")
        self.origin = origin
        self.timeout = timeout

    def translate(self, message: str, service: str, setting: str) -> ProxyError:
        """Return the error for clients, whose ``log`` has the reason. ``setting`` is the setting that holds the URL."""
        server = ServerAddress(service, self.origin.host, self.origin.port, setting)
        return translate_connect_error(self.__cause__, message, server, timeout=self.timeout)


class Exchange:
    """One request and the received part of its answer.

    ``status`` is None until the headers have arrived. ``ended`` is true once no more bytes will arrive, and ``broken``
    if the connection died before the answer was complete. ``listener`` is called instead of waking ``wait``.
    ``answered_in_tls`` is true if a plain connection received a TLS alert, ``head_too_large`` if the headers exceeded
    ``MAX_HEAD_BYTES``. ``at_end`` is called once the exchange no longer has a connection, with whether it was
    aborted from this side.
    """

    __slots__ = (
        "_awake",
        "_body",
        "_client",
        "_connection",
        "_discard",
        "_endpoint",
        "_loop",
        "_request",
        "_sent_at",
        "_size",
        "_waiter",
        "answered_in_tls",
        "at_end",
        "broken",
        "ended",
        "head_too_large",
        "headers",
        "listener",
        "status",
    )

    def __init__(self, client: HttpClient, endpoint: Endpoint, request: bytes) -> None:
        self._client = client
        self._endpoint = endpoint
        self._request = request
        self._loop = client.loop
        self._connection: _Connection | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._awake = False
        self._waiter: asyncio.Future[None] | None = None
        self._sent_at = 0.0
        self._discard = False
        self.listener: Callable[[], None] | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.ended = False
        self.broken = False
        self.answered_in_tls = False
        self.head_too_large = False
        self.at_end: Callable[[bool], None] | None = None

    async def wait(self) -> None:
        """Wait until bytes arrived, the answer ended, or ``wake`` was called since the last return."""
        if not self._awake:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._awake = False

    def wake(self) -> None:
        """Call the listener, or let ``wait`` return."""
        if self.listener is not None:
            self.listener()
            return
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> bytes:
        """Return the body bytes that arrived since the last call."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        if self._size > HIGH_WATER:
            self.resume()
        self._size = 0
        return data

    def pause(self) -> None:
        """Stop reading from the upstream, since what it sends cannot be passed on."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._connection is not None:
            self._connection.resume()

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body; stop reading after about ``limit`` bytes."""
        parts = [self.take()]
        size = len(parts[0])
        while not self.ended and size < limit:
            await self.wait()
            parts.append(self.take())
            size += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Abort the exchange and discard unread bytes."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._end(aborted=True)

    def linger(self, seconds: float) -> None:
        """Discard the rest of the answer; the connection is reused if the answer ends within ``seconds``."""
        if self._connection is not None:
            self._discard = True
            self.listener = None
            self._body.clear()
            self._connection.resume()
            self._loop.call_later(seconds, self.close)

    def describe_missing_answer(self, service: str, setting: str, *, expects_https: bool = False) -> str:
        """Return, in sentences for the operator, why the exchange has no answer, or only that HTTPS is expected."""
        origin = self._endpoint.origin
        server = ServerAddress(service, origin.host, origin.port, setting)
        if expects_https or self.answered_in_tls:
            return describe_failure("https", server)
        return describe_failure("closed_plain" if origin.scheme == "http" else "closed", server)

    async def send(self) -> None:
        """Send the request. Raises CannotConnect."""
        connection = self._client.take_idle(self._endpoint.origin) or await self._client.connect(self._endpoint.origin)
        self._connection = connection
        self._sent_at = self._loop.time()
        connection.start(self, self._request)
        if len(self._request) > LARGE_REQUEST:
            self._loop.call_later(RESEND_WINDOW, self._drop_request)

    def _drop_request(self) -> None:
        self._request = b""

    # Called by the connection

    def on_headers(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._request = b""  # an answered request is not sent again

    def on_body(self, parts: list[bytes], size: int) -> None:
        """Store ``parts``, ``size`` bytes in all."""
        if not self._discard:
            self._body += parts
            self._size += size

    def on_read(self) -> None:
        """Wake the reader after a read, and pause reading if it leaves too much unread."""
        if self.listener is not None:
            self.listener()
        else:
            self.wake()
        if self._size > HIGH_WATER:
            self.pause()

    def on_end(self, *, broken: bool, reused: bool, silent: bool) -> None:
        self._connection = None
        early = self._loop.time() - self._sent_at < RESEND_WINDOW
        if broken and reused and silent and early and self._request:
            self._client.spawn(self._resend())
            return
        self.broken = broken
        self._end()
        self.wake()

    def _end(self, *, aborted: bool = False) -> None:
        self.ended = True
        if self.at_end is not None:
            at_end, self.at_end = self.at_end, None
            at_end(aborted)

    async def _resend(self) -> None:
        try:
            connection = await self._client.connect(self._endpoint.origin)
        except CannotConnect:
            self.broken = True
            self._end()
            self.wake()
            return
        if self.ended:
            connection.abort()
            return
        self._connection = connection
        connection.start(self, self._request)


class _Connection(asyncio.BufferedProtocol):
    """One connection, serving one exchange at a time. All connections of a client read into the same ``buffer``."""

    def __init__(
        self, buffer: memoryview, release: Callable[[_Connection], None], forget: Callable[[_Connection], None]
    ) -> None:
        self._buffer = buffer
        self._release = release
        self._forget = forget
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._without_body = 0  # bytes since the last one of a body
        self._silent = True
        self._complete = False
        self._keep_alive = False
        self._held = False
        self._yielded = False
        self._paused = False
        self.reused = False
        self.transport: asyncio.Transport | None = None
        self.expiry: asyncio.TimerHandle | None = None

    def start(self, exchange: Exchange, request: bytes) -> None:
        self._exchange = exchange
        self._silent = True
        self._complete = False
        self._without_body = 0
        if self.transport is None or self.transport.is_closing():
            self._finish(broken=True)
            return
        self.transport.write(request)

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
            self._parse(exchange, data)
        except httptools.HttpParserError:
            self._deliver_parts(exchange, nbytes)
            self._finish(broken=True)
            self.abort()
            return
        self._deliver_parts(exchange, nbytes)
        if self._complete:
            self._finish(broken=False)
        elif nbytes < READ_BYTES:
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

    def _parse(self, exchange: Exchange, data: memoryview) -> None:
        """Feed the parser, a head only up to its limit. Raises HttpParserError, also beyond that limit."""
        if exchange.status is None and len(data) > (room := MAX_HEAD_BYTES - self._without_body):
            self._parse_last_of_head(exchange, data[:room])
            data = data[room:]
        self._parser.feed_data(data)
        self._without_body = 0 if self._parts or self._complete else self._without_body + len(data)
        if exchange.status is not None and self._without_body > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("too many bytes without a body")

    def _parse_last_of_head(self, exchange: Exchange, data: memoryview) -> None:
        self._parser.feed_data(data)
        if exchange.status is None:
            exchange.head_too_large = True
            raise httptools.HttpParserError("the head is too large")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self._forget(self)
        self.transport = None
        if self._exchange is not None:
            sized = "content-length" in self._headers or "transfer-encoding" in self._headers
            self._finish(broken=exc is not None or self._exchange.status is None or sized)

    def _finish(self, *, broken: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        reused = self.reused
        if not broken and self._keep_alive and self.transport is not None:
            self.resume()
            self.reused = True
            self._release(self)
        elif self.transport is not None:
            self.transport.abort()
        exchange.on_end(broken=broken, reused=reused, silent=self._silent)

    def _deliver_parts(self, exchange: Exchange, size: int) -> None:
        """Pass the parsed body parts to the exchange. ``size`` is that of the read: slightly more than the body's."""
        if self._parts:
            parts, self._parts = self._parts, []
            exchange.on_body(parts, size)

    # httptools

    def on_message_begin(self) -> None:
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._exchange is not None:
            self._exchange.on_headers(status, self._headers)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)  # delivered once per read, not once per chunk

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser resets it after the message


class HttpClient:
    """The connections to all upstreams. Create it inside the running event loop, and ``close`` it.

    ``connect_timeout`` is in seconds, TLS handshake included.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._connect_timeout = connect_timeout
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._idle: dict[Origin, dict[_Connection, None]] = {}  # ordered by the time of their last use
        self._open: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def exchange(self, method: str, endpoint: Endpoint, headers: bytes, body: bytes = b"") -> Exchange:
        """Send a request and return without waiting for the answer. ``headers`` are lines that end with CR LF.

        Raises CannotConnect; nothing was sent then.
        """
        lines = f"{method} {endpoint.path} HTTP/1.1\r\nHost: {endpoint.authority}\r\n".encode("latin-1")
        length = b"Content-Length: %d\r\n" % len(body) if body or method != "GET" else b""
        exchange = Exchange(self, endpoint, b"".join((lines, headers, length, b"\r\n", body)))
        await exchange.send()
        return exchange

    async def close(self) -> None:
        """Abort all connections, busy and lingering ones included: none may outlive the event loop."""
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take_idle(self, origin: Origin) -> _Connection | None:
        """Return the most recently used idle connection, or None."""
        connections = self._idle.get(origin)
        while connections:
            connection, _ = connections.popitem()
            if connection.expiry is not None:
                connection.expiry.cancel()
                connection.expiry = None
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self, origin: Origin) -> _Connection:
        tls = self._tls_context() if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(
                        self._buffer, lambda connection: self._release(origin, connection), self._forget
                    ),
                    origin.host,
                    origin.port,
                    ssl=tls,
                )
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host that cannot be a name
            raise CannotConnect(origin, self._connect_timeout) from exc
        self._open.add(connection)
        return connection

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, origin: Origin, connection: _Connection) -> None:
        connections = self._idle.setdefault(origin, {})
        seconds = IDLE_SECONDS if len(connections) < MAX_IDLE else SURPLUS_SECONDS
        connections[connection] = None
        connection.expiry = self.loop.call_later(seconds, self._expire, connections, connection)

    def _expire(self, connections: dict[_Connection, None], connection: _Connection) -> None:
        connections.pop(connection, None)
        connection.abort()

    def _forget(self, connection: _Connection) -> None:
        """Drop a lost connection, which may have been idle."""
        self._open.discard(connection)
        for connections in self._idle.values():
            connections.pop(connection, None)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
