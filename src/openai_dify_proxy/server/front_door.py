"""The client connections of one process: their admission, and the closing of idle and slow ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cached_property
from typing import Any

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from openai_dify_proxy.server.free_memory import return_free_memory
from openai_dify_proxy.server.known_heads import KnownHeads
from openai_dify_proxy.server.limits import HttpLimits, connection_limit
from openai_dify_proxy.server.protocol import Connection
from openai_dify_proxy.server.write_buffers import WriteBuffers
from openai_dify_proxy.time_slice import TimeSlice

log = structlog.get_logger("openai_dify_proxy.server")

SWEEP_INTERVAL = 1.0
"""Seconds between two checks of all deadlines. A single timer costs requests nothing."""

EXTRA_CONNECTIONS = 32
"""Connections beyond the limit that may still request ``/health``. Of further ones, the oldest is closed."""

MANY_CONNECTIONS = 256
"""Once so many connections have shrunk to half, their memory is returned to the system."""


class FrontDoor:
    """Creates connections, as the ``http`` option of uvicorn's configuration, and enforces ``limits`` on them."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.draining = False
        """Whether each connection is closed after its next answer."""
        self.idle: dict[Connection, None] = {}
        """Connections without a request, the one that has been idle longest first."""
        self.reading: dict[Connection, None] = {}
        """Connections in the middle of a request's head or body, or lingering after a refusal."""
        self.unread: dict[Connection, None] = {}
        """Connections whose clients have not read all that was written."""
        self.known_heads = KnownHeads()
        self.write_buffers = WriteBuffers(limits.stream_memory)
        self.holding: dict[Connection, int] = {}
        """Bytes by connection of incomplete heads and of requests that wait for an earlier answer."""
        self._extra: dict[Connection, None] = {}
        """Connections beyond the limit, the oldest first."""
        self._held = 0
        self._addresses: Counter[str] = Counter()
        self._open = 0
        self._peak = 0
        """The largest number of connections since memory was returned to the system."""
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        """Create the protocol of a new connection (uvicorn calls this)."""
        return Connection(self, config, server_state, app_state, _loop)

    @cached_property
    def _max_open(self) -> int:
        return self.limits.connections or connection_limit()  # the limit of this process, which may be a worker

    @cached_property
    def starting(self) -> TimeSlice:
        """The time in which requests start."""
        return TimeSlice(asyncio.get_running_loop())

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; return whether it may make any request, or only health checks."""
        self.starting.give_way()  # the loop accepts one connection per iteration
        self._open += 1
        self._peak = max(self._peak, self._open)
        if connection.address:
            self._addresses[connection.address] += 1
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(SWEEP_INTERVAL, self._sweep, connection.loop)
        if self._open <= self._max_open:
            return True
        if self.idle:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest.close()
            return True
        if (slow := self._slow_connection_of_another(connection.address)) is not None:
            del self.reading[slow]
            slow.abort()
            return True
        self._extra[connection] = None
        if len(self._extra) > EXTRA_CONNECTIONS:  # the new one may be a health check, which takes no time
            oldest = next(iter(self._extra))
            del self._extra[oldest]
            oldest.abort()
        return False

    def _slow_connection_of_another(self, address: str) -> Connection | None:
        """Return an incomplete request of another address that has more than half of the connections, or None."""
        if not self._addresses:
            return None
        greedy, count = self._addresses.most_common(1)[0]
        if greedy == address or count <= self._max_open // 2:
            return None
        return next((slow for slow in self.reading if slow.address == greedy), None)

    def hold(self, connection: Connection, held: int) -> None:
        """Record the bytes that ``connection`` holds now; drop the largest holders if all together hold too many."""
        self._held += held - self.holding.pop(connection, 0)
        if held:
            self.holding[connection] = held
        while self._held > self.limits.head_memory:
            largest = max(self.holding, key=self.holding.__getitem__)
            log.warning("connection_dropped", client=largest.address or None, held_bytes=self.holding[largest])
            self._held -= self.holding.pop(largest)
            largest.abort()

    def release(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._open -= 1
        self._held -= self.holding.pop(connection, 0)
        if connection.address:
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]
        self.idle.pop(connection, None)
        self.reading.pop(connection, None)
        self.unread.pop(connection, None)
        self._extra.pop(connection, None)
        if self._open == 0 and self._peak < MANY_CONNECTIONS and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        expired = []
        for connection in self.idle:
            if now - connection.since < self.limits.idle_timeout:
                break
            expired.append(connection)
        for connection in expired:
            connection.close()
        for connection in list(self.reading):
            connection.check_deadline(now)
        for connection in list(self.unread):
            if connection.flow.is_stalled(now, self.limits.write_timeout):
                log.info("client_stalled", client=connection.address or None)
                connection.abort()
        if self._peak >= MANY_CONNECTIONS and self._open <= self._peak // 2:
            return_free_memory()
            self._peak = self._open
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep, loop) if self._open else None
