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
from collections.abc import Coroutine
from functools import partial
from time import perf_counter

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.settings.limits import STREAM_BUFFER
from openai_dify_proxy.time_slice import TimeSlice
from openai_dify_proxy.upstream.connection import UpstreamConnection
from openai_dify_proxy.upstream.connection_errors import CannotConnect
from openai_dify_proxy.upstream.endpoints import Endpoint, Origin
from openai_dify_proxy.upstream.exchange import LARGE_REQUEST, Exchange
from openai_dify_proxy.upstream.network import Network, connect_to_proxy, open_tunnel

IDLE_SECONDS = 1.0
MAX_IDLE = 4
SURPLUS_SECONDS = 0.05
"""How long an idle connection beyond ``MAX_IDLE`` stays open: under load the next request reuses it at once."""

MAX_READ_BYTES = 48 * 1024
"""The most bytes that one read returns."""


class HttpClient:
    """The connections to all upstreams. Create it inside the running event loop, and ``close`` it.

    ``connect_timeout`` is in seconds, TLS handshake included. ``stream_buffer`` is the number of unread bytes of one
    answer at which reading pauses. ``network`` has the proxies and the certificates.
    """

    def __init__(
        self, *, connect_timeout: float, stream_buffer: int = STREAM_BUFFER, network: Network | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._connect_timeout = connect_timeout
        self.stream_buffer = stream_buffer
        # A client that does not read holds the frames of one read in memory, which are larger than what was read.
        self._buffer = memoryview(bytearray(min(MAX_READ_BYTES, stream_buffer * 3 // 4)))
        self._idle: dict[Origin, dict[UpstreamConnection, float]] = {}
        """Idle connections in the order of their last use, and when they expire by the loop's time."""
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at = 0.0
        self._open: set[UpstreamConnection] = set()
        self._network = network or Network()
        self._forwards = self._network.forwards
        self.listening = TimeSlice(self.loop)
        """The time in which the readers of exchanges are called."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def exchange(
        self, method: str, endpoint: Endpoint, headers: bytes, body: bytes | bytearray = b""
    ) -> Exchange:
        """Send a request and return without waiting for the answer. ``headers`` are lines that end with CR LF.

        Raises CannotConnect; nothing was sent then.
        """
        target = endpoint.path
        if self._forwards:
            target, authorization = self._network.forward(endpoint)
            headers += authorization
        lines = f"{method} {target} HTTP/1.1\r\nHost: {endpoint.authority}\r\n".encode("latin-1")
        size = len(body)
        length = b"Content-Length: %d\r\n" % size if size or method != "GET" else b""
        head = b"".join((lines, headers, length, b"\r\n"))
        request = (head, body) if size > LARGE_REQUEST else (head + body,)
        exchange = Exchange(self, endpoint, request, self.loop)
        connection = self._take_idle(endpoint.origin)
        if connection is None:
            began = perf_counter()
            connection = await self.connect(endpoint.origin)
            exchange.connecting = perf_counter() - began
        exchange.send(connection)
        return exchange

    async def close(self) -> None:
        """Abort all connections, busy and lingering ones included: none may outlive the event loop."""
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take_idle(self, origin: Origin) -> UpstreamConnection | None:
        """Return the most recently used idle connection, or None."""
        connections = self._idle.get(origin)
        while connections:
            connection, _ = connections.popitem()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self, origin: Origin) -> UpstreamConnection:
        await in_task()
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open_connection(origin)
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host that cannot be a name
            raise CannotConnect(origin, self._connect_timeout) from exc
        self._open.add(connection)
        return connection

    async def _open_connection(self, origin: Origin) -> UpstreamConnection:
        release = partial(self._release, self._idle.setdefault(origin, {}))

        def protocol() -> UpstreamConnection:
            return UpstreamConnection(self._buffer, release, self._forget)

        secure = origin.scheme == "https"
        tls = self._network.tls if secure else None
        proxy = self._network.proxy_of(origin.scheme, origin.host, origin.port)
        if proxy is None:
            _, connection = await self.loop.create_connection(protocol, origin.host, origin.port, ssl=tls)
            return connection
        opened = await (open_tunnel(proxy, origin) if secure else connect_to_proxy(proxy))
        name = origin.host if secure else None
        try:
            _, connection = await self.loop.create_connection(protocol, sock=opened, ssl=tls, server_hostname=name)
        except BaseException:
            opened.close()
            raise
        return connection

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, connections: dict[UpstreamConnection, float], connection: UpstreamConnection) -> None:
        """Add a connection to the idle ones of its origin."""
        at = self.loop.time() + (IDLE_SECONDS if len(connections) < MAX_IDLE else SURPLUS_SECONDS)
        connections[connection] = at
        if self._expiry is None or at < self._expiry_at:
            self._expire_at(at)

    def _expire_at(self, at: float) -> None:
        """Set the timer of all idle connections: one for each would cost more than the rest of its use."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self.loop.call_at(at, self._expire)
        self._expiry_at = at

    def _expire(self) -> None:
        """Close the connections that have been idle long enough."""
        self._expiry = None
        now = self.loop.time()
        for connections in self._idle.values():
            for connection in [connection for connection, at in connections.items() if at <= now]:
                del connections[connection]
                connection.abort()
        left = [at for connections in self._idle.values() for at in connections.values()]
        if left:
            self._expire_at(max(min(left), now + 0.001))  # uvloop rounds to milliseconds

    def _forget(self, connection: UpstreamConnection) -> None:
        """Drop a lost connection, which may have been idle."""
        self._open.discard(connection)
        for connections in self._idle.values():
            connections.pop(connection, None)
