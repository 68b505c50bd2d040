"""Runs the workers: starts them, replaces dead ones, and replaces all of them by workers with new settings.

The supervisor holds the listening sockets, so connections that arrive between two workers wait in their queue. After a
reload each new worker serves before an old one drains. At most one worker starts at a time then, and at most twice
``WORKERS`` processes run: the next reload waits for the last process of the one before it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from selectors import EVENT_READ, PollSelector
from types import FrameType
from typing import Any

from openai_dify_proxy.cli.interruption import INTERRUPTED, announce_answers
from openai_dify_proxy.cli.supervision.channel import Answers, Pong, Serving
from openai_dify_proxy.cli.supervision.control import Control
from openai_dify_proxy.cli.supervision.lines import Lines
from openai_dify_proxy.cli.supervision.loaded import CannotLoad, LoadedSettings, Loading
from openai_dify_proxy.cli.supervision.worker_process import SupervisedWorker

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

FAILED = 1
"""The exit code if the first workers do not start."""

IDLE_SECONDS = 6.0
"""How long idle connections of a replaced worker stay open. A client that reuses one at the moment of its end would
lose a request; httpx keeps idle connections for 5 s, undici and the nginx of ``deploy/`` for 4 s."""

COUNT_SECONDS = 1.0
"""How long the count of running answers may take."""

CHECK_SECONDS = 1.0

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""The pauses before a worker is started in place of one that died at once."""

STABLE_SECONDS = 10.0
"""A worker that has served for so long did not die at once."""


class Supervisor:
    """Runs ``settings.workers`` processes on ``sockets``.

    ``sources`` is the argument of the process that loads the settings again.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        settings: LoadedSettings,
        sources: str,
        control: Control,
    ) -> None:
        self._sockets = sockets
        self._settings = settings
        self._sources = sources
        self._control = control
        self._log = Lines(settings.log_level, settings.log_format)
        self._loading: Loading | None = None
        self._workers: list[SupervisedWorker] = []
        self._generation = 1
        self._proven: tuple[int, LoadedSettings] | None = None
        """The newest generation of which a worker has served."""
        self._reload_requested = False
        self._reloading = False
        self._closing = False
        self._code = 0
        self._in_terminal = os.isatty(0)  # which sends SIGHUP when it is closed
        self._signals: deque[int] = deque()
        self._pause = FIRST_PAUSE
        self._start_after = 0.0
        self._count_until: float | None = None

    def run(self) -> int:
        """Run the workers until SIGTERM or Ctrl-C. Return the exit code."""
        wakeup, waker = socket.socketpair()
        with wakeup, waker:
            wakeup.setblocking(False)
            waker.setblocking(False)
            signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
            for number in SIGNALS:
                signal.signal(number, self._on_signal)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the start may have blocked them
            try:
                self._advance()
                while self._workers or not self._closing:
                    self._wait(wakeup)
                    self._advance()
            finally:
                signal.set_wakeup_fd(-1)
                if self._loading is not None:
                    self._loading.close()
        return self._code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _wait(self, wakeup: socket.socket) -> None:
        """Wait for a signal, a report or a request, and handle it."""
        timeout = 0.1 if self._count_until is not None else CHECK_SECONDS
        sources: list[Any] = [wakeup, *self._workers, *self._control.sources]
        if self._loading is not None:
            sources.append(self._loading)
        for source in _readable(sources, timeout):
            if source is wakeup:
                wakeup.recv(4096)
            elif isinstance(source, SupervisedWorker):
                self._receive(source)
            elif isinstance(source, Loading):
                self._receive_settings(source)
            elif self._control.receive(source):
                self._reload_requested = True
        while self._signals:
            self._handle_signal(self._signals.popleft())
        now = time.monotonic()
        for process in (*self._workers, self._loading):
            if process is not None:
                process.check(now)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not (self._in_terminal and not os.isatty(0)):
            self._reload_requested = True
        elif number == signal.SIGINT and self._closing:
            self._code = INTERRUPTED
            for worker in self._workers:
                worker.cut()
        elif not self._closing:
            interrupted = number == signal.SIGINT
            self._close(delay=0 if interrupted else self._settings.shutdown_delay)
            if interrupted:
                self._count_until = time.monotonic() + COUNT_SECONDS

    def _close(self, *, delay: float) -> None:
        """Drain all workers; the program ends when they have exited."""
        self._closing = True
        self._control.answer(["The server is shutting down."])
        for listener in self._sockets:  # connections are refused once the workers close theirs
            listener.close()
        for worker in self._workers:
            if worker.state != "draining":
                worker.drain(delay=delay, closing=True)

    def _receive(self, worker: SupervisedWorker) -> None:
        match worker.receive():
            case Serving():
                self._on_serving(worker)
            case Answers(number):
                worker.answers = number
            case Pong():
                pass
            case None:
                self._workers.remove(worker)
                self._on_exit(worker)

    def _on_serving(self, worker: SupervisedWorker) -> None:
        if worker.state != "starting":
            return
        worker.start_serving()
        self._log.debug("worker_started", pid=worker.pid)
        if worker.generation == self._generation:
            self._proven = (self._generation, self._settings)
        old = next((other for other in self._active if other.generation < self._generation), None)
        if old is not None:
            old.drain(delay=min(IDLE_SECONDS, self._settings.shutdown_grace), closing=False)

    def _on_exit(self, worker: SupervisedWorker) -> None:
        reason = worker.exit_reason()
        if worker.state == "draining":
            if worker.stuck:
                self._log.warning("worker_killed", pid=worker.pid, reason="it did not exit in time")
            return
        reason = "it hung and was killed" if worker.stuck else reason
        self._log.warning("worker_died", pid=worker.pid, reason=reason)
        if worker.state == "serving" and time.monotonic() - worker.served_since >= STABLE_SECONDS:
            self._pause = FIRST_PAUSE
        elif worker.state == "serving" or self._proven is not None:
            self._start_after = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if worker.state == "starting" and not self._closing:
            self._on_failed_start(worker)

    def _on_failed_start(self, worker: SupervisedWorker) -> None:
        """Return to the settings before a reload, if no worker starts with the new ones."""
        if self._proven is None:
            self._log.error("start_failed", reason="a worker exited before it served")
            self._code = FAILED
            self._close(delay=0)
        elif worker.generation == self._generation > self._proven[0]:
            self._generation, self._settings = self._proven
            reason = "A worker with the new settings exited before it served. The log has the reason."
            self._fail_reload([reason], logged=False)

    @property
    def _active(self) -> list[SupervisedWorker]:
        """The workers that accept connections, or will."""
        return [worker for worker in self._workers if worker.state != "draining"]

    def _advance(self) -> None:
        """Take the next step towards the wanted workers."""
        if self._closing:
            self._announce()
            return
        if self._reload_requested and not self._reloading and self._proven is not None:
            self._reload_requested = False
            self._reloading = True
            self._loading = Loading(self._sources, self._settings)
        active = self._active
        fresh = [worker for worker in active if worker.generation == self._generation]
        missing = self._settings.workers - len(fresh) if time.monotonic() >= self._start_after else 0
        if len(fresh) < len(active) and any(worker.state == "starting" for worker in active):
            missing = 0
        elif len(fresh) < len(active):
            missing = min(missing, 1)
        for _ in range(missing):
            self._workers.append(SupervisedWorker(self._settings, self._generation, self._sockets))
        self._end_reload(fresh)

    def _receive_settings(self, loading: Loading) -> None:
        """Begin to replace the workers once the settings are there."""
        if not loading.receive():
            return
        self._loading = None
        try:
            settings = loading.result()
        except CannotLoad as error:
            self._fail_reload(error.problems, logged=error.logged)
            return
        if self._closing:
            return
        self._settings = settings
        self._log = Lines(settings.log_level, settings.log_format)
        self._generation = max([self._generation, *(worker.generation for worker in self._workers)]) + 1
        self._log.info("reload_started", workers=settings.workers)

    def _fail_reload(self, problems: list[str], *, logged: bool) -> None:
        """Report why the earlier settings stay."""
        self._reloading = False
        for problem in () if logged else problems:
            self._log.error("reload_failed", reason=problem)
        self._control.answer(problems)

    def _end_reload(self, fresh: Sequence[SupervisedWorker]) -> None:
        """Report a reload once all new workers serve; it ends with the exit of the last old one."""
        if not self._reloading or self._loading is not None or len(fresh) < self._settings.workers:
            return
        for worker in self._active:
            if worker.generation < self._generation:
                worker.drain(delay=min(IDLE_SECONDS, self._settings.shutdown_grace), closing=False)
        if all(worker.state == "serving" for worker in fresh):
            self._control.answer([])
        if all(worker.generation == self._generation and worker.state != "starting" for worker in self._workers):
            self._reloading = False
            self._log.info("reload_finished", workers=len(fresh))

    def _announce(self) -> None:
        """Print how many answers the workers finish, once all have reported, or after a second."""
        if self._count_until is None:
            return
        counts = [worker.answers for worker in self._workers]
        if None not in counts or time.monotonic() >= self._count_until:
            self._count_until = None
            announce_answers(sum(count or 0 for count in counts))


def _readable(sources: list[Any], timeout: float) -> list[Any]:
    """Return those of ``sources``, objects with a descriptor, that are readable within ``timeout`` seconds."""
    with PollSelector() as selector:
        for source in sources:
            selector.register(source, EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout)]
