"""A server that runs an ASGI app in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openai_dify_proxy_demo.waitable_log import WaitableLog

DROP = "demo.drop"
"""The ASGI extension that aborts the connection: `scope["extensions"][DROP]["drop"]()`."""

IDLE_SECONDS = 5
"""How long idle connections stay open by default."""


class ThreadedServer:
    """Serves `app` on `host` and `port` (0 selects a free port) from `start` to `stop`.

    `http` creates the protocol of a connection. Idle connections are closed after `idle` seconds. At shutdown the
    server awaits `closing` in its event loop before it waits for open requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        closing: Callable[[], Awaitable[None]] | None = None,
        http: Callable[..., asyncio.Protocol] | None = None,
        idle: int = IDLE_SECONDS,
    ) -> None:
        self._app = app
        self._name = name
        self._closing = closing
        self._http = http or _DroppingProtocol
        self._idle = idle
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.host = host
        self.port = port

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """The number of open client connections."""
        return len(self._server.server_state.connections) if self._server else 0

    def start(self) -> None:
        """Start to listen. Raise RuntimeError if that fails."""
        config = uvicorn.Config(
            self._app,
            host=self.host,
            port=self.port,
            http=self._http,  # type: ignore[arg-type] # uvicorn calls it like the class that it documents
            timeout_keep_alive=self._idle,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
        started = threading.Event()
        self._server = _Server(config, started.set, self._closing)
        self._thread = threading.Thread(target=self._server.run, name=self._name, daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError(f"The demo cannot listen on {self.host}:{self.port}.")
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self._server is not None, "start() was called"
        assert self._thread is not None, "start() was called"
        self._server.should_exit = True
        self._thread.join(10)


class OpenRequestCounter:
    """Middleware that maintains `log.open_requests`."""

    def __init__(self, app: ASGIApp, log: WaitableLog) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        self._change(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        self.log.change(lambda: setattr(self.log, "open_requests", self.log.open_requests + by))


class _Server(uvicorn.Server):
    """A uvicorn server with hooks for its start and for its shutdown, before it waits for open requests."""

    def __init__(
        self,
        config: uvicorn.Config,
        listening: Callable[[], None],
        closing: Callable[[], Awaitable[None]] | None,
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._closing = closing

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: Any = None) -> None:
        if self._closing is not None:
            await self._closing()
        await super().shutdown(sockets)


class _DroppingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the DROP extension."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {DROP: {"drop": self.transport.abort}}
