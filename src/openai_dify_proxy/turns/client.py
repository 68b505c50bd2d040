"""The clients of turns, which may disconnect."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

from openai_dify_proxy.telemetry.records import RequestRecord

EXTENSION: Final = "openai_dify_proxy.responder"
"""The ASGI extension in which the front door passes the response of a request, which is also its ``Client``."""


class ClientDisconnected(Exception):
    """The client closed its connection."""


class Client(Protocol):
    """The client that waits for a turn. ``disconnected`` is true once it has disconnected.

    ``record`` is the record of its request, which the turn fills in.
    """

    record: RequestRecord

    @property
    def disconnected(self) -> bool: ...

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has."""


class ConnectedClient:
    """A client that never disconnects, for turns without a connection."""

    disconnected = False

    def __init__(self) -> None:
        self.record = RequestRecord(kind="turn")
        self.record.begin(perf_counter())

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Never call ``callback``."""
