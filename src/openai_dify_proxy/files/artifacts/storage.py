"""The interface of the stores for the contents of artifacts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import NamedTuple, Protocol

PORTION = 256 * 1024
"""Bytes of a content that are in memory at once, about."""


class StoredContent(NamedTuple):
    """A content in a store. ``written`` is in seconds since 1970."""

    name: str
    size: int
    written: float


class ArtifactStorage(Protocol):
    """Contents by name (``<number>/<hex>``). Methods raise FileNotStored. Several processes may share a store."""

    async def write(self, name: str, portions: AsyncIterable[bytes]) -> None:
        """Store a content as it arrives. It appears once it is complete; nothing is left if ``portions`` raises."""
        ...

    def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start`` up to, not including, ``end``. Raises NotFound before the first of them."""
        ...

    async def contents(self) -> list[StoredContent]: ...

    async def remove(self, name: str) -> None:
        """Remove a content, unless it is gone already."""
        ...
