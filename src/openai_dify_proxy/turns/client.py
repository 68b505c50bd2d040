"""The client of a turn: whether it has disconnected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ClientGone(Exception):
    """The client closed its connection."""


class Client(Protocol):
    """The client that waits for a turn. ``gone`` is true once it has disconnected."""

    @property
    def gone(self) -> bool: ...

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Call ``leave`` when the client disconnects, at once if it already has."""


class PatientClient:
    """A client that never disconnects, for turns without a connection."""

    gone = False

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Never call ``leave``."""


class BriefClient:
    """A client that can abort a turn only before the request to Dify: afterwards the turn continues without it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def gone(self) -> bool:
        return self._client.gone

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Never call ``leave``."""
