"""The client of a turn, as far as turns need to know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ClientGone(Exception):
    """The client closed its connection."""


class Client(Protocol):
    """Whoever waits for a turn. ``gone`` is true once it has left."""

    @property
    def gone(self) -> bool: ...

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Call ``leave`` when the client leaves, at once if it already has."""


class PatientClient:
    """A client that never leaves, for turns that no connection waits for."""

    gone = False

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Never call ``leave``."""


class BriefClient:
    """A client that is watched only until Dify was asked: the turn goes on when it leaves after that."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def gone(self) -> bool:
        return self._client.gone

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Never call ``leave``."""
