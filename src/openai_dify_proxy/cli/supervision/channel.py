"""The messages between the supervisor and its workers, over a pair of connected sockets.

Both ends see the end of the other process as the end of the channel. At most one question is unanswered at a time, so
neither end can fill the socket of a process that hangs.
"""

from __future__ import annotations

import json
from socket import socket, socketpair
from typing import Any, NamedTuple, cast


class Drain(NamedTuple):
    """Finish the running answers and exit. The worker replies with ``Answers``.

    For ``delay`` seconds idle connections stay open, and their answers ask the client to close them. ``closing`` is
    true if the whole server stops: ``/ready`` then fails, and new connections are accepted during the delay.
    """

    delay: float
    closing: bool


class Cut(NamedTuple):
    """Stop the running answers and exit."""


class Ping(NamedTuple):
    """Reply with ``Pong`` from the event loop."""


class Serving(NamedTuple):
    """The worker accepts connections."""


class Answers(NamedTuple):
    """The number of answers that the worker finishes."""

    number: int


class Pong(NamedTuple):
    """The event loop runs."""


Order = Drain | Cut | Ping
Report = Serving | Answers | Pong

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Drain, Cut, Ping, Serving, Answers, Pong)}


class _End:
    """The common part of both ends. A message is a JSON list of its name and its values, after its length in four
    bytes.

    ``multiprocessing.connection`` would do as much, and takes a megabyte of each process.
    """

    def __init__(self, connection: socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Return the descriptor, which is readable if a message or the end has arrived."""
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def _send(self, message: Order | Report) -> None:
        try:
            self._send_bytes(json.dumps([type(message).__name__, *message]).encode())
        except OSError:
            pass  # the other process is dead, which the end of the channel reports

    def _receive(self) -> Any:
        try:
            name, *values = json.loads(self._receive_bytes())
        except (OSError, EOFError):
            return None
        return _KINDS[name](*values)

    def _send_bytes(self, data: bytes) -> None:
        self._connection.sendall(len(data).to_bytes(4, "big") + data)

    def _receive_bytes(self) -> bytes:
        return self._read(int.from_bytes(self._read(4), "big"))

    def _read(self, size: int) -> bytes:
        """Return that many bytes. Raises EOFError at the end of the channel."""
        data = bytearray()
        while len(data) < size:
            if not (part := self._connection.recv(size - len(data))):
                raise EOFError
            data += part
        return bytes(data)


class SupervisorEnd(_End):
    """The supervisor's end of the channel to one worker."""

    def __init__(self) -> None:
        mine, self.of_worker = socketpair()
        super().__init__(mine)

    def send_settings(self, encoded: bytes) -> None:
        """Send the settings, which the worker reads first. Raises OSError if the worker is dead."""
        self._send_bytes(encoded)

    def send(self, order: Order) -> None:
        """Send an order. A dead worker does not receive it."""
        self._send(order)

    def receive(self) -> Report | None:
        """Return the next report, or None if the worker has exited."""
        return cast("Report | None", self._receive())


class WorkerEnd(_End):
    """The worker's end, from the descriptor that it inherited."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket(fileno=descriptor))

    def receive_settings(self) -> bytes:
        """Wait for the encoded settings. Raises EOFError if the supervisor is dead."""
        return self._receive_bytes()

    def send(self, report: Report) -> None:
        """Send a report. A dead supervisor does not receive it."""
        self._send(report)

    def receive(self) -> Order | None:
        """Return the next order, or None if the supervisor has exited."""
        return cast("Order | None", self._receive())
