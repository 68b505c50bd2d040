"""Where pictures are kept: what every place offers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from openai_dify_proxy.pictures.records import PictureRecord


class PictureStore(Protocol):
    """Pictures by name, each with its record. Every method raises PictureNotKept when the place fails.

    What is put is there whole or not at all, and survives the end of the process and of the machine. Several
    processes may use one place at a time. A name that is none of a picture's names nothing.
    """

    rescan_seconds: float
    """How often it is worth to look for what other processes have left pending."""

    async def put(self, data: bytes, record: PictureRecord) -> PictureRecord:
        """Keeps a picture; one that is there already stays, and its record is completed. Returns the record kept."""
        ...

    async def read(self, name: str) -> bytes:
        """Raises NotFound."""
        ...

    async def record(self, name: str) -> PictureRecord | None: ...

    async def update(self, record: PictureRecord) -> None:
        """Replaces the record of a picture that is there."""
        ...

    def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
        """All records in no order; with ``before``, only those that may have been created before then."""
        ...

    async def pending(self) -> list[str]:
        """Names of pictures that are still to be uploaded."""
        ...

    async def delete(self, name: str) -> None:
        """Of a picture that is not there nothing is deleted, which is no error."""
        ...

    async def signed_link(self, name: str) -> str | None:
        """Where clients may be sent to for the bytes; None if they are to be read here."""
        ...

    async def take_lease(self) -> bool:
        """Whether this process is the one that uploads; asked again before every round."""
        ...

    async def close(self) -> None:
        """Gives the lease up."""
        ...
