"""The stored event stream of a background response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from openai_dify_proxy.api.streaming import SSE_HEADERS, WRITE_TIMEOUT_SECONDS

log = structlog.get_logger(__name__)


class StoredStream(StreamingResponse):
    """Sends the portions of a stream, each before the next is read, to a client that reads in time."""

    def __init__(self, portions: AsyncIterator[bytes], *, write_timeout: float = WRITE_TIMEOUT_SECONDS) -> None:
        super().__init__(portions)
        self.raw_headers = [*SSE_HEADERS]
        self._write_timeout = write_timeout

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._write_timeout):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            log.info("client_stalled")
            raise
