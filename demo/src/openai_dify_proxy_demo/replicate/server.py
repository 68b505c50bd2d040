"""The scripted Replicate as ASGI apps, and as two servers in threads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy_demo.replicate.errors import not_found
from openai_dify_proxy_demo.replicate.log import ReplicateLog
from openai_dify_proxy_demo.replicate.routes import API_ROUTES, OUTPUT_ROUTES
from openai_dify_proxy_demo.replicate.state import DEMO_PACE, INSTANT, ReplicateState, ReplicateTiming
from openai_dify_proxy_demo.serving import OpenRequestCounter, ThreadedServer

DEMO_CREDENTIAL = "r8_demo"
"""The default API token of the scripted Replicate."""


def create_demo_replicate(
    *, timing: ReplicateTiming = DEMO_PACE, token: str = DEMO_CREDENTIAL, faults: bool = False
) -> Starlette:
    """Return the scripted Replicate's API as an ASGI app.

    `faults` enables the fault keywords. `app.state.demo` is the ReplicateState, `app.state.log` the ReplicateLog.
    A second app, `create_output_origin(app.state.demo)`, serves the outputs; set `app.state.demo.output_origin` to its
    origin.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await app.state.demo.close()

    app = Starlette(routes=API_ROUTES, lifespan=lifespan, exception_handlers={404: _not_found})
    app.router.redirect_slashes = False
    app.state.demo = ReplicateState(timing, token, faults=faults)
    app.state.log = app.state.demo.log
    app.add_middleware(OpenRequestCounter, log=app.state.log)
    return app


def create_output_origin(state: ReplicateState) -> Starlette:
    """Return the origin that serves the outputs, as an ASGI app. It needs no token."""
    app = Starlette(routes=OUTPUT_ROUTES)
    app.state.demo = state
    app.add_middleware(OpenRequestCounter, log=state.log)
    return app


class DemoReplicate:
    """The scripted Replicate on two sockets: its API, and the origin of its outputs.

    As a context manager it listens on `host`, on `port` and `output_port` (0 selects a free port).
    The default timing has no delays; DEMO_PACE is the pace of the demo.
    `faults` enables the fault keywords.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        output_port: int = 0,
        timing: ReplicateTiming = INSTANT,
        token: str = DEMO_CREDENTIAL,
        faults: bool = False,
    ) -> None:
        self.token = token
        self.app = create_demo_replicate(timing=timing, token=token, faults=faults)
        self.state: ReplicateState = self.app.state.demo
        self.log: ReplicateLog = self.state.log
        self._api = ThreadedServer(self.app, "demo-replicate", host=host, port=port, closing=self.state.close)
        self._outputs = ThreadedServer(
            create_output_origin(self.state), "demo-replicate-outputs", host=host, port=output_port
        )

    @property
    def url(self) -> str:
        """The base URL of the API, including `/v1`."""
        return f"{self._api.origin}/v1"

    @property
    def output_origin(self) -> str:
        """The origin of the outputs, such as `http://127.0.0.1:40001`."""
        return self._outputs.origin

    @property
    def open_connections(self) -> int:
        """The number of open client connections to both origins."""
        return self._api.open_connections + self._outputs.open_connections

    def skip(self, seconds: float) -> None:
        """Advance the clock that expires outputs after an hour and files after a day."""
        self.state.skip(seconds)

    def __enter__(self) -> Self:
        self._outputs.start()
        self.state.output_origin = self.output_origin
        self._api.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._api.stop()
        self._outputs.stop()


async def _not_found(request: Request, error: Exception) -> Response:
    return not_found().response()
