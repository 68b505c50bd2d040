"""A Dify that continues to write after its turn was stopped."""

from __future__ import annotations

import asyncio

import httpx2

from openai_dify_proxy.settings import SecretStr, Settings
from tests.api.chat_requests import chat_body
from tests.api.servers import SSE_HEAD, ProxyServer, RawRequest, app_settings, chunk, message_frame, raw_dify
from tests.limits import PATIENCE

MIB = 1024 * 1024
FLOOD = chunk(message_frame("Once upon a time. " * 20)) * 100


async def test_little_of_a_stopped_turn_is_read() -> None:
    """The rest are the buffers of the sockets, which take a few megabytes."""
    written = 0
    cut = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(SSE_HEAD)
        try:
            while True:
                writer.write(FLOOD)
                await writer.drain()
                written += len(FLOOD)
        except ConnectionError:
            cut.set()
            raise

    async with raw_dify(answer) as dify:
        settings = Settings(
            dify_api_url=dify.url,
            apps={"raw": app_settings("raw", "app-raw", dify.url)},
            state_url=SecretStr("memory://"),
        )
        with ProxyServer(settings) as proxy:
            async with httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http:
                url = f"{proxy.url}/chat/completions"
                async with http.stream("POST", url, json=chat_body("hi", model="raw", stream=True)) as reply:
                    await anext(reply.aiter_bytes())
                before = written
                async with asyncio.timeout(PATIENCE):
                    await dify.stopped.wait()
                    await cut.wait()
    assert written - before < 10 * MIB
