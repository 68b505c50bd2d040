"""Removes pictures after the retention time, except those with a pending upload.

It also removes pictures without a record, which killed processes leave behind.
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
    """Removes old pictures. ``seconds`` is the retention time, ``clock`` returns seconds since the epoch."""

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
        """Remove expired pictures and orphans, and return their number. Raises PictureNotStored."""
        limit = self._clock() - self._seconds
        removed = 0
        async for record in self._store.records(before=limit):
            # The same picture may have been generated again since.
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
                log.warning("retention_failed", reason=error.log or error.message)
            await asyncio.sleep(self._pause)
