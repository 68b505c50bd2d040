"""The life of a worker: it serves the listening sockets until its supervisor ends it, or dies.

It ignores Ctrl-C, which a terminal sends to all processes: the supervisor decides.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any

import structlog
from starlette.applications import Starlette
from uvicorn.config import Config

from openai_dify_proxy.app import create_app
from openai_dify_proxy.cli.server import GracefulServer, handle_signals, server_config
from openai_dify_proxy.cli.start_check import check_at_start
from openai_dify_proxy.cli.supervision.channel import Answers, Cut, Drain, Ping, Pong, Serving, WorkerEnd
from openai_dify_proxy.server import http_limits
from openai_dify_proxy.server.free_memory import return_large_blocks
from openai_dify_proxy.settings import Settings, decode_settings
from openai_dify_proxy.telemetry import configure_logging

log = structlog.get_logger(__name__)

ACCEPTED_SECONDS = 0.5
"""How long the last accepted connections may take to send their first request."""

SUPERVISOR_DIED = Drain(delay=0, closing=True)


def main() -> None:
    """Serve until the supervisor ends this process. The arguments are the channel and the listening sockets."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    descriptors = [int(argument) for argument in sys.argv[1:]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
    with closing(WorkerEnd(descriptors[0])) as channel:
        _serve(sockets, channel)


def _serve(sockets: list[socket.socket], channel: WorkerEnd) -> None:
    settings = decode_settings(channel.receive_settings())
    configure_logging(settings.log_level, settings.log_format)
    config = server_config(create_process_app(settings), http_limits(settings), grace=settings.shutdown_grace)
    server = WorkerServer(config, channel, sockets)
    handle_signals(server)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.run(sockets)


class WorkerServer(GracefulServer):
    """A server on ``sockets`` that takes orders from a supervisor."""

    def __init__(self, config: Config, channel: WorkerEnd, sockets: list[socket.socket]) -> None:
        super().__init__(config)
        self._sockets = sockets
        self._channel = channel
        self._drain: asyncio.Task[None] | None = None

    async def main_loop(self) -> None:
        """Serve until the end of a drain, or a signal."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # in place of uvicorn's handler
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._receive, loop)
        self._channel.send(Serving())
        await super().main_loop()

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        match order := self._channel.receive():
            case Ping():
                self._channel.send(Pong())
            case Cut():
                self.should_exit = self.force_exit = True
            case Drain():
                self._channel.send(Answers(self.answers))
                self._begin_drain(order, loop)
            case None:
                loop.remove_reader(self._channel.fileno())
                log.warning("supervisor_died", answers=self.answers)
                self._begin_drain(SUPERVISOR_DIED, loop)

    def _begin_drain(self, order: Drain, loop: asyncio.AbstractEventLoop) -> None:
        if self._drain is None or not order.delay:
            self._drain = loop.create_task(self._drain_connections(order))

    async def _drain_connections(self, order: Drain) -> None:
        self.begin_drain(closing=order.closing)
        await asyncio.sleep(order.delay)
        if order.closing and order.delay:
            self.accept_last_connections(self._sockets)
            await asyncio.sleep(ACCEPTED_SECONDS)
        self.should_exit = True


def create_process_app(settings: Settings) -> Starlette:
    """Create the app, and tune this process for it once it has started. The process must serve nothing else."""
    app = create_app(settings)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def tuned_lifespan(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with lifespan(app) as state:
            assert state is not None
            checking = asyncio.create_task(check_at_start(settings, app.state.services.profiles))
            _tune_garbage_collector()
            return_large_blocks()
            yield state
            checking.cancel()
            await asyncio.wait([checking])

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
