"""The write timeout: it disconnects a client that reads nothing of a stream, and not one that reads slowly."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.api.floods import Flood, flooded_proxy
from tests.api.raw_client import Client, settled, until
from tests.api.servers import raw_dify
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

OFTEN = 0.05
"""The interval of heartbeats, and so of the timer that checks the write timeout."""


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
    async with raw_dify(Flood()) as dify:
        with flooded_proxy(dify, write_timeout=0.3, heartbeat_interval=OFTEN) as proxy, capture_logs() as logs:
            client = Client(proxy.port, path, receive_buffer=8192)
            await client.ask("hi", "raw", stream=True)
            await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
            await until(lambda: any(entry.get("outcome") == "client_stalled" for entry in logs))
            seen = await asyncio.wait_for(read_to_the_end(client), PATIENCE)
            await client.disconnect()
            assert b"[DONE]" not in seen
            assert (len(dify.turns), len(dify.stops)) == (1, 1)
            assert not any(entry.get("outcome") == "client_gone" for entry in logs)


async def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    """It reads for much longer than the write timeout, and what it has not read never waits that long."""
    loop, flood = MovableLoop(), Flood()
    async with raw_dify(flood) as dify:
        with flooded_proxy(dify, loop=loop, write_timeout=300) as proxy, capture_logs() as logs:
            proxy.limit_send_buffers(8192)
            client = Client(proxy.port, receive_buffer=8192)
            await client.ask("hi", "raw", stream=True)
            for _ in range(4):
                await client.read_exactly(256 * 1024)  # more than the buffers hold, so that the proxy writes again
                await settled(lambda: flood.written)
                loop.move(200)
            assert not dify.stops
            await client.disconnect()
            await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
            await until(lambda: any(entry.get("outcome") == "client_gone" for entry in logs))
            assert not any(entry.get("outcome") == "client_stalled" for entry in logs)
