"""The slots of a Dify API process, which serves a fixed number of connections at a time.

As measured on Dify 1.16, whose docker image serves ten:

- A further connection is accepted by the operating system, but nothing reads its request until a slot is free. That
  holds for every route, stop calls included. Waiting connections are served in the order in which they came.
- An idle connection has a slot too. Dify closes it after 2 s up to 1.13, and never since 1.14.
- When a client closes an event stream, its slot is free about 0.8 s later, since Dify notices at its next writes. The
  run itself continues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from openai_dify_proxy_demo.dialects import Dialect
from openai_dify_proxy_demo.log import DemoLog

RELEASE_SECONDS = 0.8
"""Seconds until a stream closed by its client frees its slot."""


def idle_seconds(dialect: Dialect) -> int:
    """Return how long a version of Dify leaves idle connections open: for 2 s up to 1.13, and then for ever."""
    return 2 if dialect.gunicorn_headers else 10**8


def limit_connections(config: Config, app: Starlette, slots: int) -> None:
    """Make the server of the scripted Dify `app` serve at most `slots` connections at a time."""
    config.http = Slots(app.state.log, slots)  # type: ignore[assignment] # uvicorn calls it like a class
    config.timeout_keep_alive = idle_seconds(app.state.dialect)


class Slots:
    """Creates the connections of a server, as uvicorn's `http` option, and serves at most `count` of them at a time.

    Without `count` all are served. A stream frees its slot `release` seconds after its client closed it.
    The numbers of connections are in `log`.
    """

    def __init__(self, log: DemoLog, count: int | None = None, *, release: float = RELEASE_SECONDS) -> None:
        self.release = release if count is not None else 0.0
        self._log = log
        self._count = count
        self._waiting: deque[SlotProtocol] = deque()

    def __call__(self, *arguments: Any, **named: Any) -> SlotProtocol:
        """Create the protocol of a new connection (uvicorn calls this)."""
        return SlotProtocol(self, *arguments, **named)

    def enter(self, connection: SlotProtocol) -> None:
        """Serve a new connection as soon as a slot is free."""
        self._waiting.append(connection)
        self._log.change(self._serve_waiting)

    def leave(self, connection: SlotProtocol) -> None:
        """Free the slot of a closed connection, or forget that it waits for one."""
        self._log.change(lambda: self._leave(connection))

    def _leave(self, connection: SlotProtocol) -> None:
        if connection.served:
            self._log.connections -= 1
        else:
            self._waiting.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        log = self._log
        while self._waiting and (self._count is None or log.connections < self._count):
            self._waiting.popleft().serve()
            log.connections += 1
            log.peak_connections = max(log.peak_connections, log.connections)
        log.waiting_connections = len(self._waiting)


class SlotProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which parses nothing before its connection has a slot."""

    def __init__(self, slots: Slots, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._slots = slots
        self._held = b""
        self.served = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._slots.enter(self)

    def data_received(self, data: bytes) -> None:
        if self.served:
            super().data_received(data)
        else:
            self._held += data
            self.flow.pause_reading()  # uvloop ignores it in connection_made

    def connection_lost(self, exc: Exception | None) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        in_response = cycle is not None and not cycle.response_complete
        super().connection_lost(exc)
        leave: Callable[[SlotProtocol], None] = self._slots.leave
        if in_response and self._slots.release:
            self.loop.call_later(self._slots.release, leave, self)
        else:
            leave(self)

    def serve(self) -> None:
        """Begin to parse."""
        self.served = True
        if self._held:
            super().data_received(self._held)
            self.flow.resume_reading()
