"""The write timeout: it disconnects a client that reads nothing of a stream, and not one that reads slowly."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.settings import Settings
from tests.api.raw_client import Client, until
from tests.api.servers import (
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    message_frame,
    raw_dify,
)
from tests.limits import PATIENCE

FLOOD = chunk(*[message_frame("x" * 1000)] * 40)


async def flood(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
    """Answer with text that never ends."""
    writer.write(SSE_HEAD)
    while True:
        writer.write(FLOOD)
        await writer.drain()


def serve(url: str, write_timeout: float) -> ProxyServer:
    """Return a proxy whose timer fires often."""
    settings = Settings(dify_api_url=url, apps={"raw": app_settings("raw", "app-raw", url)}, heartbeat_interval=0.05)
    return ProxyServer(settings, write_timeout=write_timeout)


async def read_to_the_end(client: Client) -> bytes:
    """Read until the connection ends, also by a reset."""
    try:
        while data := await client.read(1 << 20):
            client.seen = (client.seen + data)[-1000:]
    except ConnectionError:
        pass
    return client.seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_client_that_reads_nothing_is_disconnected_and_its_run_is_stopped(path: str) -> None:
    async with raw_dify(flood) as dify:
        with serve(dify.url, 0.3) as proxy, capture_logs() as logs:
            client = Client(proxy.port, path, receive_buffer=8192)
            await client.ask("hi", "raw", stream=True)
            await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
            await until(lambda: any(entry["event"] == "client_stalled" for entry in logs))
            seen = await asyncio.wait_for(read_to_the_end(client), PATIENCE)
            await client.disconnect()
            assert b"[DONE]" not in seen
            assert (len(dify.turns), len(dify.stops)) == (1, 1)
            assert not any(entry["event"] == "client_disconnected" for entry in logs)


async def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    """It reads for longer than the write timeout, and what it has not read never waits that long."""
    write_timeout = 3.0
    async with raw_dify(flood) as dify:
        with serve(dify.url, write_timeout) as proxy, capture_logs() as logs:
            proxy.limit_send_buffers(8192)
            client = Client(proxy.port, receive_buffer=8192)
            await client.ask("hi", "raw", stream=True)
            loop = asyncio.get_running_loop()
            end = loop.time() + write_timeout + 0.5
            while loop.time() < end:
                assert await client.read(8192)
                await asyncio.sleep(0.01)
            assert not dify.stops
            await client.disconnect()
            await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
            await until(lambda: any(entry["event"] == "client_disconnected" for entry in logs))
            assert not any(entry["event"] == "client_stalled" for entry in logs)
