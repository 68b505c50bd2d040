"""The HTTP server: uvicorn, which reports on Ctrl-C how many answers it finishes, and stops at once on the second.

A terminal sends Ctrl-C to all processes of the program. With several workers, the parent asks each for its number of
answers, and prints the sum.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import multiprocess

from openai_dify_proxy.cli.listening import BACKLOG
from openai_dify_proxy.server import FrontDoor, HttpLimits

if TYPE_CHECKING:  # its imports are unnecessary in a parent of workers
    from openai_dify_proxy.api.services import Services

log = structlog.get_logger(__name__)

INTERRUPTED = 130
"""The exit code after a second Ctrl-C, as shells have it: 128 and the number of SIGINT."""

STOP_SECONDS = 2.0
"""How long the stop calls to Dify may take after a second Ctrl-C."""

END_SECONDS = 5.0
"""How long the process may take to exit then."""


def server_config(
    app: ASGIApp | str, limits: HttpLimits, *, grace: float, workers: int = 1, factory: bool = False
) -> uvicorn.Config:
    """Return uvicorn's configuration; ``grace`` is how many seconds running requests may take to end."""
    return uvicorn.Config(
        app,
        factory=factory,
        workers=workers,
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


def run(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    """Serve in this process until SIGTERM or Ctrl-C. A second Ctrl-C ends the process."""
    server = _Server(config)
    _handle_signals(server)
    server.run(sockets)


def run_workers(factory: str, sockets: list[socket.socket], limits: HttpLimits, *, grace: float, workers: int) -> None:
    """Serve the app of ``factory`` in worker processes. Raises SystemExit after a second Ctrl-C."""
    multiprocess.Process = _WorkerProcess  # type: ignore[misc]  # uvicorn has no parameter for it
    supervisor = _Supervisor(server_config(factory, limits, grace=grace, workers=workers, factory=True), sockets)
    supervisor.run()
    if supervisor.forced:
        sys.exit(INTERRUPTED)


def _handle_signals(server: uvicorn.Server) -> None:
    """Handle signals before and after uvicorn does: it raises them again after a graceful stop.

    With these handlers the exit code is then 0, and a signal during start-up ends the server.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _announce(answers: int) -> None:
    if answers:
        # A terminal has shown ^C in this line.
        start = "\n" if sys.stdout.isatty() else ""
        noun = "answer" if answers == 1 else "answers"
        print(f"{start}finishing {answers} {noun}; press again to stop", flush=True)  # noqa: T201 - for the person


def _log_cuts(record: logging.LogRecord) -> bool:
    """Log the end of the grace as an event instead of uvicorn's line, and drop the tracebacks of cancelled answers."""
    if str(record.msg).startswith("Cancel %s running task"):
        log.warning("answers_cut", count=record.args[0] if isinstance(record.args, tuple) else None)
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class _Server(uvicorn.Server):
    interrupted = False

    @property
    def answers(self) -> int:
        """The number of answers under way: requests, and responses in the background."""
        services = self._services
        return len(self.server_state.tasks) + (services.background.unfollowed if services else 0)

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
        _announce(self.answers)

    async def _end_process(self) -> None:
        """Cut all answers, stop their runs in Dify, and exit.

        Does not close the event loop: that sometimes blocks after tasks were cancelled (uvloop 0.23).
        """
        await asyncio.wait((asyncio.ensure_future(self._cut_answers()),), timeout=END_SECONDS)
        sys.stdout.flush()
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


class _WorkerServer(_Server):
    def announce(self) -> None:
        """Print nothing: the parent does."""


_COUNT = b"answers"
"""The parent's request for the number of answers; the others are uvicorn's health checks."""


class _WorkerProcess(multiprocess.Process):
    def start(self) -> None:
        """Start the process. It ignores Ctrl-C until it serves, since the parent stops it."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().start()
        finally:
            signal.signal(signal.SIGINT, handler)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in the worker process."""
        _handle_signals(self.server)
        try:
            super().target(sockets)
        finally:
            sys.stdin.close()  # uvicorn opened it, and does not close it

    @property
    def server(self) -> _WorkerServer:
        if self._server is None:
            self._server = _WorkerServer(self.config)
        assert isinstance(self._server, _WorkerServer)
        return self._server

    def pong(self) -> None:
        """Answer one question of the parent."""
        question = self.child_conn.recv()
        self.child_conn.send(self.server.answers if question == _COUNT else self.server.started)


def _count_answers(workers: Iterable[_WorkerProcess]) -> int:
    """Return the number of answers of all workers. Workers that exit or do not reply within a second have none."""
    waiting: dict[Connection, _WorkerProcess] = {}
    for worker in workers:
        with suppress(OSError):
            worker.parent_conn.send(_COUNT)
            waiting[worker.parent_conn] = worker
    answers = 0
    deadline = time.monotonic() + 1
    while waiting and (ready := wait([*waiting, *map(_sentinel, waiting.values())], deadline - time.monotonic())):
        for connection, worker in list(waiting.items()):
            if connection in ready or _sentinel(worker) in ready:
                del waiting[connection]
            with suppress(OSError, EOFError):
                answers += int(connection.recv()) if connection in ready else 0
    return answers


def _sentinel(worker: _WorkerProcess) -> int:
    return worker.process.sentinel


class _Supervisor(multiprocess.Multiprocess):
    forced = False

    def handle_int(self) -> None:
        """Stop, and print how many answers the workers finish."""
        if self.should_exit.is_set():
            self.signal_queue.append(signal.SIGINT)  # the second one, for join_all
            return
        super().handle_int()
        _announce(_count_answers(process for process in self.processes if isinstance(process, _WorkerProcess)))

    def join_all(self) -> None:
        """Wait for the workers. Pass Ctrl-C on to them, since only a terminal sends it to all processes."""
        for process in self.processes:
            while process.process.is_alive():
                process.process.join(0.1)
                if signal.SIGINT in self.signal_queue:
                    self.signal_queue.clear()
                    self.forced = True
                    self._interrupt_workers()

    def _interrupt_workers(self) -> None:
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
