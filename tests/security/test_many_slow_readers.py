"""Many clients that do not read their streams: the proxy limits its buffers for all of them together."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from tests.api.raw_client import settled, until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawDify,
    RawRequest,
    app_settings,
    chunk,
    message_frame,
    raw_dify,
)
from tests.limits import PATIENCE
from tests.security.test_slow_readers import KERNEL_BUFFER, bytes_in_kernel, request

STREAMS = 2000
SOCKETS = 4
"""Sockets per stream in this process: the client's, the proxy's to the client and to Dify, and Dify's."""

FRAME = message_frame("x" * 4000)
BURST = chunk(*[FRAME] * 11)
"""Frames that fill one read of the proxy."""

STREAM_BYTES = 64 * 1024
TOTAL_BYTES = 64 * 1024 * 1024
"""The documented limits of a stream and of all streams, beyond the frames that are being written."""


@pytest.fixture
def streams() -> Iterator[int]:
    """Raise the limit of open files to the hard one. Yield the number of streams, fewer than STREAMS if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SOCKETS * STREAMS + 1000
    raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
    yield min(STREAMS, (max(soft, raised) - 1000) // SOCKETS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class FloodingDify:
    """Answers with ``bursts`` bursts per turn, and counts the bytes that the kernel has taken from it."""

    def __init__(self, bursts: int) -> None:
        self._bursts = bursts
        self.turns = 0
        self.written = 0

    async def answer(self, _request: RawRequest, writer: asyncio.StreamWriter) -> None:
        self.turns += 1
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has all bytes
        writer.write(SSE_HEAD)
        for _ in range(self._bursts):
            writer.write(BURST)
            await writer.drain()
            self.written += len(BURST)
        writer.write(chunk(END) + LAST_CHUNK)

    @asynccontextmanager
    async def running(self, **settings: int) -> AsyncIterator[tuple[RawDify, ProxyServer]]:
        """Run it, and a proxy for it with these settings that is not started yet."""
        async with raw_dify(self.answer) as dify:
            apps = {"raw": app_settings("raw", "app-raw", dify.url)}
            options: dict[str, Any] = {"apps": apps, "dify_max_concurrent": "off", **settings}
            yield dify, ProxyServer(Settings(dify_api_url=dify.url, **options))


async def connect(stack: ExitStack, proxy: ProxyServer, count: int) -> list[socket.socket]:
    """Return clients with small buffers in the kernel, which have sent a request and read nothing."""
    proxy.limit_send_buffers(KERNEL_BUFFER)
    clients = []
    for _ in range(count):
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", proxy.port))
        client.send(request("chat/completions"))
        clients.append(client)
    return clients


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the sizes of sockets' queues")
async def test_two_thousand_clients_that_do_not_read(streams: int, http: httpx2.AsyncClient) -> None:
    flooding = FloodingDify(bursts=4)
    async with flooding.running() as (dify, proxy):
        with proxy, ExitStack() as stack:
            await connect(stack, proxy, streams)
            await until(lambda: flooding.turns == streams)
            await settled(lambda: flooding.written)
            ports = (proxy.port, int(dify.url.removesuffix("/v1").rpartition(":")[2]))
            held = flooding.written - bytes_in_kernel(*ports)
            assert held <= min(streams * STREAM_BYTES, TOTAL_BYTES) + streams * len(FRAME)
            assert 0 < proxy.buffered_bytes <= min(streams * STREAM_BYTES, TOTAL_BYTES)
            assert (await http.get(f"{proxy.origin}/health")).status_code == 200
            stack.close()
            await until(lambda: len(dify.stops) == streams)
        assert proxy.buffered_bytes == 0


class Reader:
    """Reads the answer of a client."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self.received = 0
        self._end = b""

    async def read_to_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._end.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            data = await loop.sock_recv(self._client, 1 << 16)
            assert data
            self.received += len(data)
            self._end = (self._end + data)[-100:]


async def test_beyond_the_total_a_slow_client_waits_until_others_have_read() -> None:
    bursts, limit = 20, 256 * 1024
    flooding = FloodingDify(bursts)
    async with flooding.running(stream_memory=limit) as (dify, proxy):
        with proxy, ExitStack() as stack:
            clients = await connect(stack, proxy, 40)
            await settled(lambda: flooding.written)
            assert proxy.buffered_bytes > limit

            first, *others = [Reader(client) for client in clients]
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                reading = group.create_task(first.read_to_the_end())
                await settled(lambda: first.received)
                assert not reading.done()
                assert first.received < len(BURST) * 4, "its upstream was not paused"

                for reader in others:
                    group.create_task(reader.read_to_the_end())
            assert all(reader.received > bursts * 11 * 4000 for reader in (first, *others))
            assert not dify.stops
        assert proxy.buffered_bytes == 0


async def test_many_clients_that_read_once_exceed_the_total_by_no_more_than_a_few_reads() -> None:
    """The buffers of many clients get room at once, and each continues with as much as one read of Dify's stream."""
    number, limit = 120, 1024 * 1024
    flooding = FloodingDify(bursts=20)
    async with flooding.running(stream_memory=limit) as (_, proxy):
        with proxy, ExitStack() as stack:
            clients = await connect(stack, proxy, number)
            await until(lambda: flooding.turns == number)
            await settled(lambda: flooding.written)
            largest = before = proxy.buffered_bytes
            assert before > limit // 2
            loop = asyncio.get_running_loop()

            async def read(client: socket.socket) -> None:
                while True:
                    await loop.sock_recv(client, 1 << 16)

            readers = [asyncio.create_task(read(client)) for client in clients[::2]]
            written = -1
            while written < flooding.written:
                written = flooding.written
                for _ in range(25):
                    await asyncio.sleep(0.01)
                    largest = max(largest, proxy.buffered_bytes)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            assert largest <= max(before, limit) + 4 * 64 * 1024, (before, largest)
