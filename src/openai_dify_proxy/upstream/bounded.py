"""Reads the bodies of aiohttp responses up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientResponse


class ResponseTooLarge(Exception):
    """The body has more bytes than the limit."""


async def read_bounded(response: ClientResponse, limit: int) -> bytes:
    """Return the body. Raises ResponseTooLarge as soon as more than ``limit`` bytes have arrived."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise ResponseTooLarge
        parts.append(part)
    return b"".join(parts)
