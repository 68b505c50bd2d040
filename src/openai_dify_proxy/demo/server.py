"""The demo as an ASGI app, and as a server of its own in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from openai_dify_proxy.demo.dialects import DIALECTS, LATEST
from openai_dify_proxy.demo.log import DemoLog
from openai_dify_proxy.demo.replies import RefusedError, refusal
from openai_dify_proxy.demo.routes import NOT_FOUND_PAGE, ROUTES
from openai_dify_proxy.demo.runs import DEMO_PACE, INSTANT, Timing
from openai_dify_proxy.demo.state import DemoState


def create_demo_app(version: str = LATEST, *, timing: Timing = DEMO_PACE) -> Starlette:
    """The scripted Dify as an ASGI app.

    `version` is the manner of keys that name none (a key of DIALECTS); `timing` its durations.
    `app.state.log` is the DemoLog of all that it is asked.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await app.state.demo.close()

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        exception_handlers={404: _not_found, 405: _wrong_method},
    )
    app.router.redirect_slashes = False
    app.state.demo = DemoState(timing)
    app.state.log = app.state.demo.log
    app.state.dialect = DIALECTS[version]
    app.add_middleware(_CountOpenRequests, log=app.state.log)
    return app


class DemoServer:
    """The demo on a socket, served by a thread with its own event loop.

    As a context manager it listens on `host` and `port` (0: a free one) from enter to exit.
    With the default timing words are not waited for; give DEMO_PACE for the pace of the demo.
    """

    def __init__(
        self, version: str = LATEST, *, host: str = "127.0.0.1", port: int = 0, timing: Timing = INSTANT
    ) -> None:
        self.app = create_demo_app(version, timing=timing)
        self.log: DemoLog = self.app.state.log
        self._host = host
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = port

    @property
    def url(self) -> str:
        """The base URL of its API, with `/v1`."""
        return f"http://{self._host}:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        """How many TCP connections clients hold open."""
        return len(self._server.server_state.connections) if self._server else 0

    def __enter__(self) -> Self:
        config = uvicorn.Config(
            self.app,
            host=self._host,
            port=self.port,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
        started = threading.Event()
        self._server = _Server(config, started.set, self.app.state.demo.close)
        self._thread = threading.Thread(target=self._server.run, name="demo-dify", daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError(f"the demo cannot listen on {self._host}:{self.port}")
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None and self._thread is not None, "entered before"  # noqa: PT018
        self._server.should_exit = True
        self._thread.join(10)


class _Server(uvicorn.Server):
    """Tells when it listens, and ends the runs before it waits for their streams."""

    def __init__(
        self, config: uvicorn.Config, listening: Callable[[], None], end_runs: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._end_runs = end_runs

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: Any = None) -> None:
        await self._end_runs()
        await super().shutdown(sockets)


class _CountOpenRequests:
    def __init__(self, app: ASGIApp, log: DemoLog) -> None:
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


async def _not_found(request: Request, error: Exception) -> Response:
    return HTMLResponse(NOT_FOUND_PAGE, 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    response = refusal(
        RefusedError(405, "method_not_allowed", "The method is not allowed for the requested URL."),
        request.app.state.dialect,
    )
    response.headers.update(headers or {})
    return response
