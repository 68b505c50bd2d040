"""Removes pictures that are older than the retention time, except those that are still to be uploaded.

Pictures without a record, which a killed process leaves behind, are removed too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from openai_dify_proxy.errors import PictureNotStored
from openai_dify_proxy.pictures.store import PictureStore

log = structlog.get_logger(__name__)


class Retention:
    """``seconds`` is how long pictures are stored, ``clock`` returns seconds since the epoch."""

    def __init__(self, store: PictureStore, seconds: float, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._pause = min(max(seconds / 24, 60.0), 3600.0)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def sweep(self) -> int:
        """Remove expired pictures and orphans, and return how many. Raises PictureNotStored."""
        limit = self._clock() - self._seconds
        removed = 0
        async for record in self._store.records(before=limit):
            # It may have been generated again since it was listed.
            removed += await self._store.delete(record.name, before=limit)
        async for name in self._store.orphans():
            removed += await self._store.remove_orphan(name)
        return removed

    async def _run(self) -> None:
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    log.info("pictures_removed", pictures=removed)
            except PictureNotStored as error:
                log.warning("pictures_not_removed", reason=error.log or error.message)
            await asyncio.sleep(self._pause)
