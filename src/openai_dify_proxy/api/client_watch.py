"""Detection of clients that disconnect before the response is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starlette.types import Receive


class ClientWatch:
    """Watches the connection of a request within a ``with`` block. Enter it only after the body has been read."""

    def __init__(self, receive: Receive) -> None:
        self.disconnected = False
        self._receive = receive
        self._callback: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._watch())
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = self._callback = None  # breaks reference cycles

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has."""
        self._callback = callback
        if self.disconnected:
            callback()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        if self._callback is not None:
            self._callback()
