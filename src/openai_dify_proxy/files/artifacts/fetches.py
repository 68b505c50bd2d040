"""Fetches artifacts in the background. No answer waits for a fetch.

The fetching process renews its lease on the record; once that has run out, another process may fetch the file again, as
long as Dify's link is valid. Each Dify serves ``FETCHES_OF_LIMITED`` files at a time if its turns are limited, so that
files take no connection from stop calls for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
from msgspec import structs

from openai_dify_proxy.errors import ProxyError, StateUnreachable
from openai_dify_proxy.files.artifacts.download import Downloads
from openai_dify_proxy.files.artifacts.records import Artifact, ArtifactRecords

FETCHES = 4
"""Files that a process fetches at the same time."""

FETCHES_OF_LIMITED = 1
MAX_WAITING = 200
"""Files that wait for their fetch in one process, or are being fetched."""

LIFE_SECONDS = 280.0
"""How long a fetch may take, with its wait: Dify's links die after five minutes."""

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
RETRY_SECONDS = (0.5, 2.0, 10.0)
"""The pauses after which the end of a fetch is written again if the state cannot be reached."""

log = structlog.get_logger(__name__)


class Fetch:
    """A fetch in this process. ``artifact`` is its record so far, ``ended`` is set at its end."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.ended = asyncio.Event()


class Fetches:
    """The fetches of this process. ``is_limited`` says whether the turns in the Dify with an origin are limited."""

    def __init__(self, records: ArtifactRecords, downloads: Downloads, is_limited: Callable[[str], bool]) -> None:
        self._records = records
        self._downloads = downloads
        self._is_limited = is_limited
        self._running: dict[str, Fetch] = {}
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._all = asyncio.Semaphore(FETCHES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether no further fetch may start."""
        return len(self._running) >= MAX_WAITING

    def find(self, name: str) -> Fetch | None:
        """Return the fetch of an artifact in this process, by its id."""
        return self._running.get(name)

    def start(self, artifact: Artifact) -> Fetch:
        """Fetch an artifact in the background."""
        fetch = Fetch(structs.replace(artifact, leased_until=self._records.now() + LEASE_SECONDS))
        self._running[artifact.id] = fetch
        self._spawn(self._run(fetch))
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return fetch

    def rename(self, fetch: Fetch, title: str) -> None:
        """Give an artifact another title, now or at the end of its fetch."""
        fetch.artifact = structs.replace(fetch.artifact, title=title)
        if fetch.ended.is_set():
            self._spawn(self._put(fetch.artifact))

    async def close(self) -> None:
        """Abort all fetches. Another process may take them over."""
        tasks = [*self._tasks, *([] if self._renewing is None else [self._renewing])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fetch: Fetch) -> None:
        artifact = fetch.artifact
        try:
            await self._put(artifact)
            async with asyncio.timeout(LIFE_SECONDS), self._lane(artifact.url), self._all:
                result = await self._downloads.run(artifact)
            log.info("artifact_stored", artifact=artifact.id[:8], type=result.media_type, size=result.size)
        except (ProxyError, TimeoutError) as error:
            result = _failed(artifact, error)
        except Exception:  # a bug: the link says so instead of waiting for ever
            log.exception("artifact_crashed", artifact=artifact.id[:8])
            result = structs.replace(artifact, status="failed", error="The proxy failed unexpectedly.")
        fetch.artifact = structs.replace(result, title=fetch.artifact.title)
        fetch.ended.set()
        await self._put(fetch.artifact)
        self._running.pop(artifact.id, None)

    async def _put(self, artifact: Artifact) -> None:
        """Write a record, again if the state cannot be reached."""
        for pause in (*RETRY_SECONDS, None):
            try:
                await self._records.put(artifact)
            except StateUnreachable:
                if pause is None:
                    log.warning("artifact_lost", artifact=artifact.id[:8])
                    return
                await asyncio.sleep(pause)
            else:
                return

    async def _renew(self) -> None:
        """Renew the leases of all fetches, until none is left."""
        while self._running:
            await asyncio.sleep(RENEW_SECONDS)
            for fetch in list(self._running.values()):
                if not fetch.ended.is_set():
                    until = self._records.now() + LEASE_SECONDS
                    fetch.artifact = structs.replace(fetch.artifact, leased_until=until)
                    with suppress(StateUnreachable):  # the next renewal may succeed
                        await self._records.put(fetch.artifact)

    def _lane(self, url: str) -> asyncio.Semaphore:
        base_url = url.partition("/files/")[0]
        lane = self._lanes.get(base_url)
        if lane is None:
            count = FETCHES_OF_LIMITED if self._is_limited(base_url) else FETCHES
            lane = self._lanes[base_url] = asyncio.Semaphore(count)
        return lane

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _failed(artifact: Artifact, error: ProxyError | TimeoutError) -> Artifact:
    """Return the record of a failed fetch. The client sees the reason, the log that for the operator too."""
    reason = error.message if isinstance(error, ProxyError) else "Dify's link died before its turn came."
    detail = error.with_reason if isinstance(error, ProxyError) else reason
    log.warning("artifact_failed", artifact=artifact.id[:8], reason=detail)
    return structs.replace(artifact, status="failed", error=reason)
