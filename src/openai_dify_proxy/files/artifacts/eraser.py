"""Erases the contents of artifacts whose links have expired, and the oldest ones if there are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from openai_dify_proxy.errors import FileNotStored
from openai_dify_proxy.files.artifacts.records import BUCKET_SECONDS
from openai_dify_proxy.files.artifacts.storage import ArtifactStorage, StoredContent

PAUSE_SECONDS = 300.0

log = structlog.get_logger(__name__)


class Eraser:
    """Erases contents. ``limit`` is in bytes; ``now`` returns seconds since 1970."""

    def __init__(self, storage: ArtifactStorage, *, limit: int, now: Callable[[], float]) -> None:
        self._storage = storage
        self._limit = limit
        self._now = now
        self._bytes = 0
        self._sweeping = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def count(self, size: int) -> None:
        """Count a new content, and erase older ones if there are too many bytes. Raises FileNotStored."""
        self._bytes += size
        if self._bytes > self._limit:
            await self.sweep()

    async def sweep(self) -> int:
        """Erase expired contents and those beyond the limit, and return the number of contents. Raises
        FileNotStored."""
        async with self._sweeping:
            contents = await self._storage.contents()
            erased = [content for content in contents if self._has_expired(content)]
            kept = sorted((content for content in contents if not self._has_expired(content)), key=_age)
            self._bytes = sum(content.size for content in kept)
            for content in kept:
                if self._bytes <= self._limit:
                    break
                self._bytes -= content.size
                erased.append(content)
            for content in erased:
                await self._storage.remove(content.name)
            return len(erased)

    def _has_expired(self, content: StoredContent) -> bool:
        bucket = content.name.partition("/")[0]
        return bucket.isdecimal() and (int(bucket) + 1) * BUCKET_SECONDS <= self._now()

    async def _run(self) -> None:
        while True:
            try:
                if erased := await self.sweep():
                    log.info("artifacts_erased", artifacts=erased)
            except FileNotStored as error:
                log.warning("artifacts_not_erased", reason=error.with_reason)
            await asyncio.sleep(PAUSE_SECONDS)


def _age(content: StoredContent) -> float:
    return content.written
