"""The scripted Dify as an ASGI app, and as a server in a thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from openai_dify_proxy_demo.dialects import DIALECTS, LATEST
from openai_dify_proxy_demo.log import DemoLog
from openai_dify_proxy_demo.replies import ApiError, error_response
from openai_dify_proxy_demo.routes import NOT_FOUND_PAGE, ROUTES
from openai_dify_proxy_demo.runs import DEMO_PACE, INSTANT, Timing
from openai_dify_proxy_demo.serving import IDLE_SECONDS, OpenRequestCounter, ThreadedServer
from openai_dify_proxy_demo.slots import RELEASE_SECONDS, Slots, idle_seconds
from openai_dify_proxy_demo.state import DemoState


def create_demo_app(
    version: str = LATEST,
    *,
    timing: Timing = DEMO_PACE,
    clock: Callable[[], float] = time.time,
    faults: bool = False,
) -> Starlette:
    """Return the scripted Dify as an ASGI app.

    `version`, a key of DIALECTS, is the dialect of keys without a version suffix; `timing` sets the delays.
    `clock` returns the seconds since 1970 and is called once per turn. Turns that start within the same second reach
    the model in the wrong order, as in Dify. `faults` enables the fault keywords.
    `app.state.log` is the DemoLog.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await app.state.demo.close()

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        exception_handlers={404: _not_found, 405: _method_not_allowed},
    )
    app.router.redirect_slashes = False
    app.state.demo = DemoState(timing, faults, clock)
    app.state.log = app.state.demo.log
    app.state.dialect = DIALECTS[version]
    app.add_middleware(OpenRequestCounter, log=app.state.log)
    return app


class DemoServer:
    """The scripted Dify on a socket, served by a thread with its own event loop.

    As a context manager it listens on `host` and `port` (0 selects a free port).
    The default timing has no delays; DEMO_PACE is the pace of the demo.
    With the clock `itertools.count(1_700_000_000).__next__`, every turn starts in its own second.
    `faults` enables the fault keywords.
    `slots` is how many connections it serves at a time, as a Dify of `version` does (see `slots.py`); without it there
    is no limit. A stream frees its slot `release` seconds after its client closed it.
    """

    def __init__(
        self,
        version: str = LATEST,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        timing: Timing = INSTANT,
        clock: Callable[[], float] = time.time,
        faults: bool = False,
        slots: int | None = None,
        release: float = RELEASE_SECONDS,
    ) -> None:
        self.app = create_demo_app(version, timing=timing, clock=clock, faults=faults)
        self.log: DemoLog = self.app.state.log
        self._serving = ThreadedServer(
            self.app,
            "demo-dify",
            host=host,
            port=port,
            closing=self.app.state.demo.close,
            http=Slots(self.log, slots, release=release),
            idle=IDLE_SECONDS if slots is None else idle_seconds(DIALECTS[version]),
        )

    @property
    def port(self) -> int:
        return self._serving.port

    @property
    def url(self) -> str:
        """The base URL of the API, including `/v1`."""
        return f"{self._serving.origin}/v1"

    @property
    def open_connections(self) -> int:
        """The number of open client connections."""
        return self._serving.open_connections

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._serving.stop()


async def _not_found(request: Request, error: Exception) -> Response:
    return HTMLResponse(NOT_FOUND_PAGE, 404)


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    response = error_response(
        ApiError(405, "method_not_allowed", "The method is not allowed for the requested URL."),
        request.app.state.dialect,
    )
    response.headers.update(headers or {})
    return response
