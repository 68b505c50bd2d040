"""Detection of clients that disconnect before the response is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starlette.types import Receive


class ClientWatch:
    """Watches the connection of a request within a ``with`` block. Enter it only after the body has been read."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive
        self._leave: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._watch())
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = self._leave = None  # breaks reference cycles

    def on_leave(self, leave: Callable[[], object]) -> None:
        """Call ``leave`` when the client disconnects, at once if it already has."""
        self._leave = leave
        if self.gone:
            leave()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._leave is not None:
            self._leave()
