"""The messages between the supervisor and its workers, over a pair of connected sockets.

Both ends see the end of the other process as the end of the channel. At most one question is unanswered at a time, so
neither end can fill the socket of a process that hangs.
"""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection

import msgspec
from msgspec import Struct

from openai_dify_proxy.settings import Settings, decode_settings, encode_settings


class Drain(Struct, tag="drain"):
    """Finish the running answers and exit. The worker replies with ``Answers``.

    For ``delay`` seconds idle connections stay open, and their answers ask the client to close them. ``closing`` is
    true if the whole server stops: ``/ready`` then fails, and new connections are accepted during the delay.
    """

    delay: float
    closing: bool


class Cut(Struct, tag="cut"):
    """Stop the running answers and exit."""


class Ping(Struct, tag="ping"):
    """Reply with ``Pong`` from the event loop."""


class Serving(Struct, tag="serving"):
    """The worker accepts connections."""


class Answers(Struct, tag="answers"):
    """The number of answers that the worker finishes."""

    count: int


class Pong(Struct, tag="pong"):
    """The event loop runs."""


Order = Drain | Cut | Ping
Report = Serving | Answers | Pong

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


class SupervisorEnd:
    """The supervisor's end of the channel to one worker."""

    def __init__(self) -> None:
        mine, self.of_worker = socket.socketpair()
        self._connection = Connection(mine.detach())

    def fileno(self) -> int:
        """Return the descriptor, which is readable if a report or the end has arrived."""
        return self._connection.fileno()

    def send_settings(self, settings: Settings) -> None:
        """Send what the worker reads first. Raises OSError if the worker is dead."""
        self._connection.send_bytes(encode_settings(settings))

    def send(self, order: Order) -> None:
        """Send an order. A dead worker does not receive it; the end of its channel reports that."""
        try:
            self._connection.send_bytes(msgspec.json.encode(order))
        except OSError:
            pass  # the worker is dead

    def receive(self) -> Report | None:
        """Return the next report, or None if the worker has exited."""
        try:
            return _reports.decode(self._connection.recv_bytes())
        except (OSError, EOFError):
            return None

    def close(self) -> None:
        self._connection.close()


class WorkerEnd:
    """The worker's end, from the descriptor that it inherited."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)

    def fileno(self) -> int:
        """Return the descriptor, which is readable if an order or the end has arrived."""
        return self._connection.fileno()

    def receive_settings(self) -> Settings:
        """Wait for the settings. Raises EOFError if the supervisor is dead."""
        return decode_settings(self._connection.recv_bytes())

    def send(self, report: Report) -> None:
        """Send a report. A dead supervisor does not receive it; the end of the channel reports that."""
        try:
            self._connection.send_bytes(msgspec.json.encode(report))
        except OSError:
            pass  # the supervisor is dead

    def receive(self) -> Order | None:
        """Return the next order, or None if the supervisor has exited."""
        try:
            return _orders.decode(self._connection.recv_bytes())
        except (OSError, EOFError):
            return None
