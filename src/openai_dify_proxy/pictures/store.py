"""The interface of all picture stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from openai_dify_proxy.pictures.records import PictureRecord


class PictureStore(Protocol):
    """Pictures by name, each with its record. Every method raises PictureNotStored when the store fails.

    Writes are atomic and durable. Several processes may share a store. Malformed names count as missing.
    """

    rescan_seconds: float
    """Seconds between scans for pending pictures of other processes."""

    async def put(self, data: bytes, record: PictureRecord) -> PictureRecord:
        """Store a picture, or complete the record of a stored one. Returns the record."""
        ...

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from ``start`` up to, not including, ``end``. Raises NotFound."""
        ...

    async def record(self, name: str) -> PictureRecord | None: ...

    async def update(self, name: str, change: Callable[[PictureRecord], PictureRecord]) -> PictureRecord | None:
        """Change the record of a picture and return it; None if it does not exist.

        ``change`` is called again after a concurrent change, so that no change is lost.
        """
        ...

    def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
        """Yield all records in any order; with ``before``, only older ones."""
        ...

    async def pending(self) -> list[str]:
        """Return the names of pictures that are still to be uploaded."""
        ...

    async def delete(self, name: str, *, before: float | None = None) -> bool:
        """Delete a picture, and return whether one was deleted.

        With ``before``, newer pictures and those with a pending upload are not deleted.
        """
        ...

    def orphans(self) -> AsyncIterator[str]:
        """Yield the names of pictures without a record, left by processes that were killed between the two writes."""
        ...

    async def remove_orphan(self, name: str) -> bool:
        """Remove a picture without a record, unless a process may still be writing the record."""
        ...

    async def signed_link(self, name: str) -> str | None:
        """Return a URL to redirect clients to; None if this process serves the bytes."""
        ...

    async def take_lease(self) -> bool:
        """Take or renew the lease on uploads. Returns whether this process holds it.

        An empty store may return False: there is nothing to upload.
        """
        ...

    async def close(self) -> None:
        """Release the lease."""
        ...
