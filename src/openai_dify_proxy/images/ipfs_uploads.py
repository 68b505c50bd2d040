"""Uploads pictures to IPFS in the background, with retries until each upload has succeeded.

A picture is ``pending`` in the store until a node has returned its CID, so no failure of the node or of this process
loses an upload; only the retry times are in memory. Of several processes with the same store, the one that holds the
lease uploads. After a crash between upload and record, a picture is uploaded twice, with the same CID.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog
from msgspec import Struct

from openai_dify_proxy.errors import InternalError, IpfsPending, NotFound, ProxyError
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.upstream.ipfs import IpfsClient

CONCURRENT_UPLOADS = 4
MAX_DELAY = 300.0
CLOSE_SECONDS = 5.0
STORE_DELAY = 10.0
"""Seconds until the next round after a failure of the store."""

log = structlog.get_logger(__name__)


class _FailedUpload(Struct, frozen=True):
    attempts: int
    next_at: float
    error: ProxyError


class IpfsUploads:
    """The upload queue. ``first_delay`` is in seconds; it doubles with each failure, up to ``MAX_DELAY``."""

    def __init__(
        self,
        store: PictureStore,
        ipfs: IpfsClient,
        *,
        first_delay: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ipfs = ipfs
        self._first_delay = first_delay
        self._clock = clock
        self._failed: dict[str, _FailedUpload] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.backlog = 0
        """How many pictures waited for their upload when the store was read last."""
        self._loop: asyncio.Task[None] | None = None
        self._closing = False
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()

    def start(self) -> None:
        """Start uploading, including pictures that earlier processes left pending."""
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop without waiting for IPFS: unfinished uploads stay pending."""
        self._closing = True
        self._wake.set()
        if self._loop is not None:
            # Cancelling a round could leave its lease in the store.
            await asyncio.wait([self._loop], timeout=CLOSE_SECONDS)
        tasks = [task for task in (self._loop, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def notify(self, record: PictureRecord) -> None:
        """Start the upload of a new picture immediately, without waiting for the next scan of the store."""
        if record.ipfs == "pending":
            self._wake.set()

    async def wait(self, record: PictureRecord, timeout: float) -> PictureRecord:
        """Wait until the picture is on IPFS, and return its new record.

        Raises IpfsPending after ``timeout`` seconds, or immediately after a permanent error. Retries of the upload
        continue in both cases.
        """
        before = self._attempts(record.name)
        self.notify(record)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    ended = self._ended
                    current = await self._store.record(record.name)
                    if current is not None and current.ipfs == "sent":
                        return current
                    self._raise_rejection(record.name, before)
                    # The upload may run in another process, so the record is read repeatedly.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._store.rescan_seconds):
                            await ended.wait()
        except TimeoutError:
            raise _ipfs_pending(f"The upload took longer than {timeout:g} s.") from None

    async def upload(self, name: str) -> PictureRecord:
        """Upload one picture. After a ProxyError it stays pending."""
        record = await self._store.record(name)
        if record is None:
            raise NotFound("The picture does not exist.")
        if record.ipfs == "pending":
            cid = await self._ipfs.add(await self._store.read(name), name, record.media_type)
            if cid != record.cid:
                log.warning("ipfs_cid_differed", picture=name, computed=record.cid, returned=cid)
            # The record may have changed, or the picture may have been deleted, during the upload.
            sent = await self._store.update(
                name, lambda current: msgspec.structs.replace(current, cid=cid, ipfs="sent")
            )
        else:
            sent = await self._store.update(name, lambda current: current)  # removes the pending marker
        return sent or record

    def _attempts(self, name: str) -> int:
        return self._failed[name].attempts if name in self._failed else 0

    def _raise_rejection(self, name: str, before: int) -> None:
        failed = self._failed.get(name)
        if failed is not None and failed.attempts > before and not failed.error.retryable:
            raise _ipfs_pending(failed.error.log or failed.error.message)

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            delay = await self._round()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _round(self) -> float:
        """Start the uploads that are due, and return the seconds until the next round."""
        try:
            if await self._store.take_lease():
                self._start_due(await self._store.pending())
        except ProxyError as error:
            log.warning("ipfs_upload_postponed", reason=error.log or error.message)
            return STORE_DELAY
        return self._store.rescan_seconds

    def _start_due(self, names: list[str]) -> None:
        """Start due uploads, those with the fewest failures first, so that new pictures do not wait."""
        pending = set(names)
        self.backlog = len(pending)
        self._failed = {name: failed for name, failed in self._failed.items() if name in pending}
        now = self._clock()
        due = [
            name
            for name in sorted(names, key=self._attempts)
            if name not in self._running and (name not in self._failed or self._failed[name].next_at <= now)
        ]
        for name in due[: CONCURRENT_UPLOADS - len(self._running)]:
            self._running[name] = asyncio.create_task(self._attempt(name))

    async def _attempt(self, name: str) -> None:
        try:
            record = await self.upload(name)
            self._failed.pop(name, None)
            log.info("picture_uploaded", picture=name, cid=record.cid)
        except NotFound as error:
            # The record is not written yet, or its process was killed before writing it.
            self._failed[name] = _FailedUpload(0, self._clock() + self._store.rescan_seconds, error)
            with suppress(ProxyError):  # the next scan retries
                await self._store.remove_orphan(name)
        except ProxyError as error:
            self._schedule_retry(name, error)
        except Exception as exc:
            log.exception("ipfs_upload_crashed", picture=name)
            self._schedule_retry(name, InternalError("The upload crashed.", log=str(exc)))
        finally:
            del self._running[name]
            self._wake.set()
            self._ended.set()
            self._ended = asyncio.Event()

    def _schedule_retry(self, name: str, error: ProxyError) -> None:
        attempts = self._attempts(name) + 1
        delay = max(min(self._first_delay * 2 ** (attempts - 1), MAX_DELAY), error.retry_after or 0.0)
        self._failed[name] = _FailedUpload(attempts, self._clock() + delay, error)
        log.warning(
            "ipfs_upload_failed",
            picture=name,
            attempts=attempts,
            retry_in=delay,
            reason=error.with_reason,
        )


def _ipfs_pending(reason: str) -> IpfsPending:
    return IpfsPending(
        "The picture is stored, but not on IPFS yet. The upload continues in the background.", started=True, log=reason
    )
