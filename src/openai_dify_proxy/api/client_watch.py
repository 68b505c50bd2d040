"""Detection of clients that disconnect before the response is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, cast

from starlette.types import Scope

EXTENSION = "openai_dify_proxy.disconnect"
"""The ASGI extension of the front door. ASGI's own way would need a task per request that waits for the event."""


class _Disconnection(Protocol):
    reported: bool

    def on_report(self, callback: Callable[[], object] | None) -> None: ...


class ClientWatch:
    """Watches the connection of a request within a ``with`` block."""

    def __init__(self, scope: Scope) -> None:
        self._disconnection = cast(_Disconnection, scope["extensions"][EXTENSION]["disconnection"])

    @property
    def disconnected(self) -> bool:
        """Whether the client has disconnected."""
        return self._disconnection.reported

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnection.on_report(None)

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has."""
        self._disconnection.on_report(callback)
