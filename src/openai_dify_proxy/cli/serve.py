"""The command ``serve``: the proxy in this process, or in several workers."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp
from uvicorn.supervisors.multiprocess import Multiprocess

from openai_dify_proxy.cli.banner import banner
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.cli.listening import BACKLOG, base_url, listen
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.settings import Settings, from_environment, to_environment
from openai_dify_proxy.telemetry import configure_logging

KEEP_ALIVE = 75
"""Seconds that a client's idle connection is kept: longer than clients and balancers keep theirs (5 to 60 s), so
that none sends a request into a connection that is just being closed."""

FACTORY = "openai_dify_proxy.cli.serve:create_worker_app"


def serve_proxy(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises CannotListen, and SettingsError for a PICTURE_STORE that cannot be used or a demo that is missing.
    """
    if settings.picture_store is not None:
        open_picture_store(settings)
    demo = needs_demo(settings)
    demo_images = demo and settings.replicate_api_token is None
    with ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in listen(settings.host, settings.port)]
        if demo:
            settings = stack.enter_context(demo_dify(settings, paced=True))
        if demo_images:
            settings = stack.enter_context(demo_replicate(settings, paced=True))
        # Only now: the demo's server silences uvicorn's log, which is the proxy's too.
        configure_logging(settings.log_level, settings.log_format)
        lines = banner(settings, base_url(settings.host, sockets), demo=demo, demo_images=demo_images)
        print(lines, flush=True)  # noqa: T201 - the command's output
        if settings.workers == 1:
            run(create_process_app(settings), sockets, grace=settings.shutdown_grace)
        else:
            os.environ.update(to_environment(settings))
            config = server_config(FACTORY, grace=settings.shutdown_grace, workers=settings.workers, factory=True)
            Multiprocess(config, sockets).run()


def create_worker_app() -> Starlette:
    """Create the app of a worker process, which gets its settings from the parent by environment."""
    settings = from_environment()
    configure_logging(settings.log_level, settings.log_format)
    return create_process_app(settings)


def create_process_app(settings: Settings) -> Starlette:
    """Create the app that is all that this process serves, and tune the process for it once it has started."""
    from openai_dify_proxy.app import create_app  # a parent of workers serves nothing itself

    app = create_app(settings)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def tuned_lifespan(app: Starlette) -> AsyncIterator[None]:
        async with lifespan(app):
            _tune_garbage_collector()
            yield

    app.router.lifespan_context = tuned_lifespan
    return app


def _tune_garbage_collector() -> None:
    """Exempt the objects that live as long as the server, and collect young garbage less often.

    Requests leave almost no cycles behind; at its default pace the collector takes up to a fifth of the CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def server_config(app: ASGIApp | str, *, grace: float, workers: int = 1, factory: bool = False) -> uvicorn.Config:
    """Return uvicorn's configuration; ``grace`` is how many seconds running requests may take to end."""
    return uvicorn.Config(
        app,
        factory=factory,
        workers=workers,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here depends on the caller's address or scheme.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(grace),
    )


def run(app: ASGIApp, sockets: list[socket.socket], *, grace: float) -> None:
    """Serve ``app`` in this process until SIGTERM or Ctrl-C."""
    # After its graceful stop uvicorn raises the signal again; these handlers let the process end with exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(server_config(app, grace=grace)).run(sockets)
