"""Reads a file from Dify into the storage, and detects its type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from openai_dify_proxy.errors import BadPicture, UpstreamFailed, UpstreamTimeout
from openai_dify_proxy.files.artifacts.eraser import Eraser
from openai_dify_proxy.files.artifacts.records import Artifact
from openai_dify_proxy.files.artifacts.storage import PORTION, ArtifactStorage
from openai_dify_proxy.translate.file_types import detect
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.exchange import Exchange

FETCH_SECONDS = 120.0

PROBE = 64 * 1024
"""Bytes at the beginning of a file that decide on its type."""

DECODINGS = 2
"""Pictures that are in memory at once, to be decoded."""


class Downloads:
    """Reads files of at most ``max_bytes``, within ``seconds``. Pictures of at most ``max_picture_bytes`` are decoded.

    The others are never shown in a page.
    """

    def __init__(
        self,
        dify: DifyClient,
        storage: ArtifactStorage,
        eraser: Eraser,
        *,
        max_bytes: int,
        max_picture_bytes: int,
        seconds: float = FETCH_SECONDS,
    ) -> None:
        self._dify = dify
        self._storage = storage
        self._eraser = eraser
        self._max_bytes = max_bytes
        self._max_picture_bytes = max_picture_bytes
        self._seconds = seconds
        self._decodings = asyncio.Semaphore(DECODINGS)

    async def run(self, artifact: Artifact) -> Artifact:
        """Store the content of an artifact, and return its record as ready. Raises ProxyError."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._run(artifact)
        except TimeoutError:
            raise UpstreamTimeout(f"Dify did not send the file within {self._seconds:g} s.") from None

    async def _run(self, artifact: Artifact) -> Artifact:
        exchange = await self._dify.file(artifact.url)
        try:
            content = _Content(exchange, self._max_bytes)
            async with aclosing(content.portions()) as portions:
                await self._storage.write(artifact.storage_name, portions)
        finally:
            if not exchange.ended:
                exchange.close()
        await self._eraser.count(content.size)
        head = bytes(content.head)
        found = detect(head, artifact.url.partition("?")[0], exchange.headers.get("content-type", ""))
        is_picture = sniff(head) is not None and content.size <= self._max_picture_bytes
        return structs.replace(
            artifact,
            status="ready",
            size=content.size,
            extension=found.extension,
            media_type=found.media_type,
            inline=is_picture and await self._decodes(artifact, content.size),
        )

    async def _decodes(self, artifact: Artifact, size: int) -> bool:
        from openai_dify_proxy.pictures.decoding import in_thread, verify_decodable  # noqa: PLC0415 - loads Pillow

        async with self._decodings, aclosing(self._storage.read(artifact.storage_name, 0, size)) as portions:
            data = b"".join([portion async for portion in portions])
            try:
                await in_thread(verify_decodable, data)
            except BadPicture:
                return False
            return True


class _Content:
    """The body of Dify's answer. ``head`` is its beginning, ``size`` the number of bytes so far."""

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self.head = bytearray()
        self.size = 0
        self._exchange = exchange
        self._limit = limit

    async def portions(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, unread bytes of which stay in the socket. Raises UpstreamFailed."""
        exchange = self._exchange
        while exchange.status is None and not exchange.ended:
            await exchange.wait()
        self._check_head()
        ended = False
        while not ended:
            ended, portion = await self._next()
            self.size += len(portion)
            if self.size > self._limit:
                raise self._too_large()
            if len(self.head) < PROBE:
                self.head += portion[: PROBE - len(self.head)]
            yield portion
        if exchange.broken:
            raise UpstreamFailed("Dify broke off the file.")

    async def _next(self) -> tuple[bool, bytes]:
        """Return whether the body ended, and the bytes that arrived: about ``PORTION``, fewer at the end."""
        exchange, parts, size = self._exchange, list[bytes](), 0
        while True:
            ended = exchange.ended
            parts.append(exchange.take())
            size += len(parts[-1])
            if ended or size >= PORTION:
                return ended, b"".join(parts)
            await exchange.wait()

    def _check_head(self) -> None:
        exchange = self._exchange
        if exchange.status is None:
            raise UpstreamFailed("Dify closed the connection without an answer.")
        if exchange.status != 200:
            raise UpstreamFailed(f"Dify answered with HTTP {exchange.status}.")
        length = exchange.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            raise self._too_large()

    def _too_large(self) -> UpstreamFailed:
        return UpstreamFailed(f"It is larger than {self._limit} bytes, the limit MAX_ARTIFACT_BYTES.")
