"""Sends the request of a turn once more if Dify has lost a file that an earlier turn uploaded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import UploadLost
from openai_dify_proxy.events import Event, TurnFailed
from openai_dify_proxy.files.uploads import KnownCopies

if TYPE_CHECKING:
    from openai_dify_proxy.turns.dify_stream import DifyStream, Run

UploadAgain = Callable[["DifyStream"], Awaitable["Run"]]
"""Ends the rejected run, and sends the request with new uploads. Raises ProxyError."""


class Reuploads(Entity):
    """Decides whether a turn uploads its files again: once, and only if its request named copies of earlier turns."""

    _copies: KnownCopies
    _upload_again: UploadAgain

    def next_run(self, events: Sequence[Event]) -> UploadAgain | None:
        """Return what starts the next run if ``events``, the first ones of a run, report only a lost copy."""
        if len(events) != 1 or self._copies.lost or not self._copies.used:
            return None
        event = events[0]
        lost = isinstance(event, TurnFailed) and isinstance(event.error, UploadLost)
        return self._upload_again if lost else None
