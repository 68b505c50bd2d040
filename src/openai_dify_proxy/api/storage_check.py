"""Checks whether this process can write what it stores: the state, and the directory of pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.state.store import Put

FRESH_SECONDS = 5.0

_KEY = "ready"
_TTL = 60.0

STATE_UNWRITABLE = "The state cannot be written."
PICTURES_UNWRITABLE = "The directory of pictures cannot be written."


class StorageCheck:
    """Writes an entry to the state, at most once per ``FRESH_SECONDS``. ``now`` is a clock in seconds.

    ``shared`` says that the state is a server that other machines use as well; its outage is no fault of this process.
    ``pictures`` is None if nothing is written to the store of pictures.
    """

    def __init__(
        self,
        store: GuardedStore,
        pictures: PictureStore | None,
        *,
        shared: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._pictures = pictures
        self._shared = shared
        self._now = now
        self._until = 0.0
        self._state_written = True
        self._lock = asyncio.Lock()

    async def fault(self) -> str | None:
        """Return what this process cannot write, or None."""
        if not self._shared and not await self.writes_state():
            return STATE_UNWRITABLE
        if isinstance(self._pictures, LocalPictures) and not self._pictures.is_writable():
            return PICTURES_UNWRITABLE
        return None

    async def writes_state(self) -> bool:
        """Return whether the state can be written."""
        async with self._lock:
            if self._now() >= self._until:
                self._state_written = await self._store.run(Put(_KEY, b"1", _TTL)) is not None
                self._until = self._now() + FRESH_SECONDS
            return self._state_written
