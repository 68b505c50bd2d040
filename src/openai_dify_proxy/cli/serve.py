"""The command ``serve``: the proxy in this process, or in several workers."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import typer
from starlette.applications import Starlette

from openai_dify_proxy.cli.banner import banner
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.cli.listening import base_url, listen
from openai_dify_proxy.cli.server import run, run_workers, server_config
from openai_dify_proxy.cli.storage import storage_problems
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.server import http_limits
from openai_dify_proxy.server.free_memory import return_large_blocks
from openai_dify_proxy.settings import Settings, from_environment, to_environment
from openai_dify_proxy.telemetry import configure_logging

FACTORY = "openai_dify_proxy.cli.serve:create_worker_app"


def serve_proxy(settings: Settings, *, check: str = "openai-dify-proxy check") -> None:
    """Serve until SIGTERM or Ctrl-C. ``check`` is the command that checks the apps, for the banner.

    Raises CannotListen, and SettingsError if PICTURE_STORE cannot be used or the demo is missing.
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
        # After the start of the demo's servers: they silence uvicorn's log, which the proxy shares.
        configure_logging(settings.log_level, settings.log_format)
        for problem in storage_problems(settings):
            typer.echo(f"Warning: {problem}", err=True)
        url = base_url(settings.host, sockets)
        lines = banner(settings, url, demo=demo, demo_images=demo_images, check=check)
        print(lines, flush=True)  # noqa: T201 - the command's output
        limits = http_limits(settings)
        if settings.workers == 1:
            run(server_config(create_process_app(settings), limits, grace=settings.shutdown_grace), sockets)
        else:
            os.environ.update(to_environment(settings))
            run_workers(FACTORY, sockets, limits, grace=settings.shutdown_grace, workers=settings.workers)


def create_worker_app() -> Starlette:
    """Create the app of a worker process, which reads its settings from the environment that the parent set."""
    settings = from_environment()
    configure_logging(settings.log_level, settings.log_format)
    return create_process_app(settings)


def create_process_app(settings: Settings) -> Starlette:
    """Create the app, and tune this process for it once it has started. The process must serve nothing else."""
    from openai_dify_proxy.app import create_app  # not at the top: a parent of workers does not need it

    app = create_app(settings)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def tuned_lifespan(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with lifespan(app) as state:
            assert state is not None
            _tune_garbage_collector()
            return_large_blocks()
            yield state

    app.router.lifespan_context = tuned_lifespan
    return app


def _tune_garbage_collector() -> None:
    """Exempt objects that live as long as the server, and collect young garbage less often.

    Requests leave almost no reference cycles. With its default thresholds the collector takes up to a fifth of the CPU
    time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
