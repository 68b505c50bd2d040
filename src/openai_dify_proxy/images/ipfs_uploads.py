"""Uploads pictures to IPFS in the background, and retries until each has arrived.

A picture stays ``pending`` in the store until a node has returned its CID, whatever happens to the node or to this
process; only the retry times are in memory. Of several processes that share a store, the holder of its lease uploads.
After a crash between upload and record a picture is uploaded twice, with the same CID both times.
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

AT_ONCE = 4
MAX_DELAY = 300.0
CLOSE_SECONDS = 5.0
STORE_DELAY = 10.0
"""Seconds until the next round after the store itself has failed."""

log = structlog.get_logger(__name__)


class _FailedUpload(Struct, frozen=True):
    attempts: int
    next_at: float
    error: ProxyError


class IpfsUploads:
    """``first_delay`` is in seconds, and doubles with each failure of a picture up to ``MAX_DELAY``."""

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
        self._loop: asyncio.Task[None] | None = None
        self._closing = False
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()

    def start(self) -> None:
        """Start uploading, also what earlier processes left pending."""
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop without waiting for IPFS: unfinished uploads stay pending."""
        self._closing = True
        self._wake.set()
        if self._loop is not None:
            # A round that is cut short could leave its lease behind.
            await asyncio.wait([self._loop], timeout=CLOSE_SECONDS)
        tasks = [task for task in (self._loop, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def notify(self, record: PictureRecord) -> None:
        """Start the upload of a new picture now, rather than at the next scan of the store."""
        if record.ipfs == "pending":
            self._wake.set()

    async def wait(self, record: PictureRecord, timeout: float) -> PictureRecord:
        """Wait until the picture is on IPFS, and return its record then.

        Raises IpfsPending after ``timeout`` seconds, and at once when IPFS rejects it with an error that a retry would
        not cure. The upload is retried all the same.
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
                    # Another process may be the one that sends, so its record is looked at as well.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._store.rescan_seconds):
                            await ended.wait()
        except TimeoutError:
            raise _ipfs_pending(f"Not sent within {timeout:g} s.") from None

    async def upload(self, name: str) -> PictureRecord:
        """Upload one picture now. Raises ProxyError, and leaves it pending then."""
        record = await self._store.record(name)
        if record is None:
            raise NotFound("There is no such picture.")
        if record.ipfs == "pending":
            cid = await self._ipfs.add(await self._store.read(name), name, record.media_type)
            if cid != record.cid:
                log.warning("ipfs_cid_differs", picture=name, computed=record.cid, told=cid)
            # Its facts may have been completed, or it may have been deleted, while it was under way.
            sent = await self._store.update(name, lambda now: msgspec.structs.replace(now, cid=cid, ipfs="sent"))
        else:
            sent = await self._store.update(name, lambda now: now)  # it only was still marked
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
                self._begin(await self._store.pending())
        except ProxyError as error:
            log.warning("ipfs_uploads_wait", reason=error.log or error.message)
            return STORE_DELAY
        return self._store.rescan_seconds

    def _begin(self, names: list[str]) -> None:
        """Pictures with the fewest failures go first, so that new ones do not queue behind old failures."""
        pending = set(names)
        self._failed = {name: failed for name, failed in self._failed.items() if name in pending}
        now = self._clock()
        due = [
            name
            for name in sorted(names, key=self._attempts)
            if name not in self._running and (name not in self._failed or self._failed[name].next_at <= now)
        ]
        for name in due[: AT_ONCE - len(self._running)]:
            self._running[name] = asyncio.create_task(self._attempt(name))

    async def _attempt(self, name: str) -> None:
        try:
            record = await self.upload(name)
            self._failed.pop(name, None)
            log.info("ipfs_sent", picture=name, cid=record.cid)
        except NotFound as error:
            # Its record is not written yet, or never will be, since the process that wrote it was killed.
            self._failed[name] = _FailedUpload(0, self._clock() + self._store.rescan_seconds, error)
            with suppress(ProxyError):  # then it is found again
                await self._store.remove_orphan(name)
        except ProxyError as error:
            self._put_off(name, error)
        except Exception as exc:
            log.exception("ipfs_upload_broke", picture=name)
            self._put_off(name, InternalError("The upload broke.", log=str(exc)))
        finally:
            del self._running[name]
            self._wake.set()
            self._ended.set()
            self._ended = asyncio.Event()

    def _put_off(self, name: str, error: ProxyError) -> None:
        attempts = self._attempts(name) + 1
        delay = max(min(self._first_delay * 2 ** (attempts - 1), MAX_DELAY), error.retry_after or 0.0)
        self._failed[name] = _FailedUpload(attempts, self._clock() + delay, error)
        log.warning(
            "ipfs_upload_failed",
            picture=name,
            attempts=attempts,
            retry_in=delay,
            reason=f"{error.message} {error.log or ''}".strip(),
        )


def _ipfs_pending(reason: str) -> IpfsPending:
    return IpfsPending("The picture is kept, and will be on IPFS as soon as that takes it.", started=True, log=reason)
