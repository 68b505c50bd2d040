"""The HTTP server of one process: uvicorn, which reports on Ctrl-C how many answers it finishes, and stops at once on
the second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, cast

import structlog
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from openai_dify_proxy.cli.interruption import INTERRUPTED, announce_answers
from openai_dify_proxy.cli.listening import BACKLOG
from openai_dify_proxy.server import FrontDoor, HttpLimits
from openai_dify_proxy.server.protocol import Connection

if TYPE_CHECKING:  # its imports are unnecessary in a parent of workers
    from openai_dify_proxy.api.services import Services

log = structlog.get_logger(__name__)

STOP_SECONDS = 2.0
"""How long the stop calls to Dify may take after a second Ctrl-C."""

END_SECONDS = 5.0
"""How long the process may take to exit then."""


def server_config(app: ASGIApp, limits: HttpLimits, *, grace: float) -> Config:
    """Return uvicorn's configuration; ``grace`` is how many seconds running requests may take to end."""
    return Config(
        app,
        http=FrontDoor(limits),  # type: ignore[arg-type] # uvicorn calls it like the class that it documents
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the front door reads those of TRUSTED_PROXIES
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(grace),
    )


def run(config: Config, sockets: list[socket.socket]) -> None:
    """Serve in this process until SIGTERM or Ctrl-C. A second Ctrl-C ends the process."""
    server = GracefulServer(config)
    handle_signals(server)
    server.run(sockets)


def handle_signals(server: Server) -> None:
    """Handle signals before and after uvicorn does: it raises them again after a graceful stop.

    With these handlers the exit code is then 0, and a signal during start-up ends the server.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _log_cuts(record: logging.LogRecord) -> bool:
    """Log the end of the grace as an event instead of uvicorn's line, and drop the tracebacks of cancelled answers."""
    if str(record.msg).startswith("Cancel %s running task"):
        log.warning("answers_cut", count=record.args[0] if isinstance(record.args, tuple) else None)
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept all connections that wait in the queue of ``listener``."""
    while True:
        try:
            yield listener.accept()[0]
        except OSError:  # none is left, or another process was faster
            return


class GracefulServer(Server):
    """A server that finishes running answers."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.interrupted = False
        self._accepting: set[asyncio.Task[object]] = set()

    @property
    def answers(self) -> int:
        """The number of answers under way: requests, and responses in the background."""
        services = self._services
        # A task is removed after it is done, which may be after this call.
        running = sum(not task.done() for task in self.server_state.tasks)
        return running + (services.background.unfollowed if services else 0)

    @property
    def _services(self) -> Services | None:
        """The services of the proxy; None for the demo."""
        app = getattr(self.config, "loaded_app", None)
        services: Services | None = getattr(getattr(app, "state", None), "services", None)
        return services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Record whether the signal is Ctrl-C, and stop as uvicorn does."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    def begin_drain(self, *, closing: bool) -> None:
        """Close each connection after its next answer.

        If the server is ``closing``, ``/ready`` fails from now on. Else no connections are accepted any more: another
        process accepts them.
        """
        cast(FrontDoor, self.config.http).draining = True
        for connection in self.server_state.connections:
            cast(Connection, connection).end_after_answer()
        if not closing:
            self.refuse_connections()
        elif services := self._services:
            services.readiness.draining = True

    def refuse_connections(self) -> None:
        """Stop listening. Connections that were accepted are served."""
        for server in self.servers:
            server.close()

    def accept_last_connections(self, sockets: list[socket.socket]) -> None:
        """Accept the connections that wait in the queues of ``sockets``, and stop listening.

        The kernel resets those that no process has accepted, though their clients may have sent requests.
        """
        waiting = [connection for listener in sockets for connection in _waiting(listener)]
        self.refuse_connections()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            task = loop.create_task(loop.connect_accepted_socket(self._make_protocol, connection))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _make_protocol(self) -> asyncio.Protocol:
        config = self.config
        return config.http_protocol_class(config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish running answers. A second Ctrl-C stops them, and ends the process."""
        logging.getLogger("uvicorn.error").addFilter(_log_cuts)
        if self.interrupted:
            self.announce()
        if services := self._services:
            services.turns.begin_close(self.config.timeout_graceful_shutdown or 0.0)
        finishing = asyncio.ensure_future(super().shutdown(sockets))
        while not finishing.done() and not self.force_exit:
            await asyncio.wait((finishing,), timeout=0.1)
        if self.force_exit:
            await self._end_process()
        await finishing

    def announce(self) -> None:
        """Print how many answers the server finishes before it exits."""
        announce_answers(self.answers)

    async def _end_process(self) -> None:
        """Cut all answers, stop their runs in Dify, and exit.

        Does not close the event loop: that sometimes blocks after tasks were cancelled (uvloop 0.23).
        """
        await asyncio.wait((asyncio.ensure_future(self._cut_answers()),), timeout=END_SECONDS)
        sys.stdout.flush()
        logging.shutdown()  # writes the lines that wait
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    async def _cut_answers(self) -> None:
        """Cancel all answers, wait for the stops of their runs and of those abandoned before, and close the app."""
        for task in self.server_state.tasks:
            task.cancel()
        if services := self._services:
            services.turns.begin_close(0)
            await asyncio.gather(services.background.close(0), services.turns.close(STOP_SECONDS))
        await self.lifespan.shutdown()
