"""The clients of turns, which may disconnect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

EXTENSION: Final = "openai_dify_proxy.responder"
"""The ASGI extension in which the front door passes the response of a request, which is also its ``Client``."""


class ClientDisconnected(Exception):
    """The client closed its connection."""


class Client(Protocol):
    """The client that waits for a turn. ``disconnected`` is true once it has disconnected."""

    @property
    def disconnected(self) -> bool: ...

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has."""


class ConnectedClient:
    """A client that never disconnects, for turns without a connection."""

    disconnected = False

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Never call ``callback``."""
