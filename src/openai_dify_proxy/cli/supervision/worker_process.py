"""One worker process as its supervisor sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from socket import socket
from typing import Literal

from openai_dify_proxy.cli.supervision.channel import Cut, Drain, Ping, Report, SupervisorEnd
from openai_dify_proxy.cli.supervision.loaded import LoadedSettings

START_SECONDS = 60.0
"""How long a worker may take to serve."""

PING_SECONDS = 10.0
"""How often a worker must show that its event loop runs."""

HUNG_SECONDS = 60.0
"""How long it may take to do so; no request blocks the loop for longer than a fraction of a second."""

EXIT_SECONDS = 20.0
"""How long a worker may take to exit after its last answer: stops in Dify, and writes to the state."""


class SupervisedWorker:
    """A worker process. ``generation`` numbers its settings. ``state`` is its stage of life."""

    def __init__(self, settings: LoadedSettings, generation: int, sockets: Sequence[socket]) -> None:
        self.generation = generation
        self.state: Literal["starting", "serving", "draining"] = "starting"
        self.answers: int | None = None
        """The number of answers that it finishes; None before it has reported it."""
        self.stuck = False
        """Whether it was killed for missing a deadline."""
        self._grace = settings.shutdown_grace
        self._channel = SupervisorEnd()
        self._deadline: float = time.monotonic() + START_SECONDS
        self._next_ping = 0.0
        self.served_since = 0.0
        descriptors = [self._channel.of_worker.fileno(), *(listener.fileno() for listener in sockets)]
        # -P: a module in the current directory must not replace one of the program.
        command = [sys.executable, "-P", "-m", "openai_dify_proxy.cli.worker", *map(str, descriptors)]
        self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)  # noqa: S603 - this program
        self._channel.of_worker.close()
        try:
            self._channel.send_settings(settings.encoded)
        except OSError:
            pass  # it died at once, which the end of the channel reports

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``receive`` has something to return."""
        return self._channel.fileno()

    def receive(self) -> Report | None:
        """Return the next report, or None if the process has exited."""
        report = self._channel.receive()
        self._next_ping = time.monotonic() + PING_SECONDS
        if self.state == "serving":
            self._deadline = self._next_ping + HUNG_SECONDS
        return report

    def start_serving(self) -> None:
        """Record that it serves."""
        self.state = "serving"
        self.served_since = time.monotonic()
        self._next_ping = self.served_since + PING_SECONDS
        self._deadline = self._next_ping + HUNG_SECONDS

    def drain(self, *, delay: float, closing: bool) -> None:
        """Ask it to finish its answers and exit. One that does not serve yet is ended at once."""
        if self.state == "starting":
            self._process.terminate()
        else:
            self._channel.send(Drain(delay, closing))
        self.state = "draining"
        # Requests, and then responses in the background, have the whole grace.
        self._deadline = time.monotonic() + delay + 2 * self._grace + EXIT_SECONDS

    def cut(self) -> None:
        """Ask it to stop its answers and exit."""
        self._channel.send(Cut())
        self._deadline = time.monotonic() + EXIT_SECONDS

    def check(self, now: float) -> None:
        """Kill it if it missed its deadline, and ask whether it hangs."""
        if now >= self._deadline:
            self.stuck = True
            self._process.kill()
        elif self.state == "serving" and now >= self._next_ping:
            self._next_ping = float("inf")  # until it has answered
            self._channel.send(Ping())

    def exit_reason(self) -> str:
        """Wait for the exit of the process and return how it ended: ``exit code 1`` or ``SIGKILL``."""
        self._channel.close()
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
