"""The stored event stream of a background response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from openai_dify_proxy.api.responder import responder_of
from openai_dify_proxy.api.streaming import SSE_HEADERS


class StoredStream(StreamingResponse):
    """Sends the portions of a stream, each before the next is read.

    A client that takes longer than ``write_timeout`` seconds for one of them is disconnected.
    """

    def __init__(self, portions: AsyncIterator[bytes], *, write_timeout: float) -> None:
        super().__init__(portions)
        self.raw_headers = [*SSE_HEADERS]
        self._write_timeout = write_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TimeoutError:
            responder_of(scope).record.departure = "client_stalled"
            responder_of(scope).abort()  # to close the connection properly would wait for the client

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._write_timeout):
                await send(message)

        await super().stream_response(send_in_time)
