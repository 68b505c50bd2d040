"""Where pictures are kept: what every place offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from ``start`` up to ``end``, which is not one of them. Raises NotFound."""
        ...

    async def record(self, name: str) -> PictureRecord | None: ...

    async def update(self, name: str, change: Callable[[PictureRecord], PictureRecord]) -> PictureRecord | None:
        """Changes the record of a picture, and returns it; None if there is none.

        ``change`` may be asked again when somebody else was quicker, so that nothing of theirs is lost.
        """
        ...

    def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
        """All records in no order; with ``before``, only those that may have been created before then."""
        ...

    async def pending(self) -> list[str]:
        """Names of pictures that are still to be uploaded."""
        ...

    async def delete(self, name: str, *, before: float | None = None) -> bool:
        """Returns whether there was a picture to delete.

        With ``before`` one stays that has been made since then, or is still to be uploaded.
        """
        ...

    def orphans(self) -> AsyncIterator[str]:
        """Names of pictures without a record, as a process leaves them that is killed between the two."""
        ...

    async def remove_orphan(self, name: str) -> bool:
        """Removes what is there of a picture without a record, once nobody can be about to write one."""
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
