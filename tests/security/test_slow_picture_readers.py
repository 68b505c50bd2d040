"""A client that does not read the pictures of a stream: the proxy encodes one at a time, and not for ever."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from openai_dify_proxy_demo.replicate.log import ReplicateLog
from tests.api.image_requests import SDXL, picture
from tests.api.raw_client import settled, until
from tests.api.servers import ProxyServer
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

Serve = Callable[..., ProxyServer]

KERNEL_BUFFER = 8 * 1024

OFTEN = 0.05
"""The interval of heartbeats, and so of the timer that checks the write timeout."""

WRITE_TIMEOUT = 1000.0
"""Seconds that pass only when a test moves the time."""

ENOUGH = 100 * 1024
"""The 64 KiB that a client must read within the write timeout, and what the kernel's buffers may hold."""

TOO_LITTLE = 8 * 1024
"""Even twice, and with what the kernel's buffers hold, less than 64 KiB."""

END_OF_FRAME = b"\n\n"
PICTURE = b"event: image_generation.completed\ndata: "


class SlowReader:
    """A client that streams pictures and reads only when told."""

    def __init__(self, proxy: ProxyServer, pictures: int, side: int, seed: int | None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        self.socket.connect(("127.0.0.1", proxy.port))
        request = {"model": SDXL, "prompt": "A fox SETTLED", "size": f"{side}x{side}", "n": pictures, "stream": True}
        body = json.dumps(request).encode()
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        more = "Content-Type: application/json\r\n" + (f"X-Replicate-Seed: {seed}\r\n" if seed else "")
        self.socket.sendall(f"{head}{more}\r\n".encode() + body)
        self.socket.setblocking(False)
        self.read_bytes = 0
        self._seen = b""

    async def read(self, size: int) -> None:
        """Read at most ``size`` of the next bytes."""
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.socket, size)
        assert data, self._seen[-100:]
        self.read_bytes += len(data)
        self._seen += data

    async def read_picture(self) -> bytes:
        """Return the data of the next picture's event."""
        while True:
            while END_OF_FRAME not in self._seen:
                await self.read(4096)
            frame, _, self._seen = self._seen.partition(END_OF_FRAME)
            if PICTURE in frame:
                return frame.partition(PICTURE)[2]


@contextmanager
def reading(proxy: ProxyServer, pictures: int, side: int = 1024, seed: int | None = None) -> Iterator[SlowReader]:
    reader = SlowReader(proxy, pictures, side, seed)
    with reader.socket:
        yield reader


def slow_proxy(serve_images: Serve, **settings: Any) -> ProxyServer:
    proxy = serve_images(**settings)
    proxy.limit_send_buffers(KERNEL_BUFFER)
    return proxy


async def test_one_frame_is_buffered_at_a_time(serve_images: Serve) -> None:
    proxy = slow_proxy(serve_images)
    held, frames = [], []
    with reading(proxy, 4) as reader:
        await until(lambda: proxy.buffered_bytes > 0)
        for _ in range(4):
            await settled(lambda: proxy.buffered_bytes)
            held.append(proxy.buffered_bytes)
            frames.append(await reader.read_picture())
    assert [picture(json.loads(frame)["b64_json"]).size for frame in frames] == [(1024, 1024)] * 4
    assert all(0 < size <= max(map(len, frames)) + 100 for size in held), held


async def test_frames_are_not_encoded_beyond_the_memory_for_streams(
    serve_images: Serve, predictions: ReplicateLog, tmp_path: Path
) -> None:
    proxy = slow_proxy(serve_images, stream_memory=64 * 1024)
    with reading(proxy, 1) as first:
        await until(lambda: proxy.buffered_bytes > 64 * 1024)
        with reading(proxy, 1) as second:
            await until(lambda: len(list(tmp_path.rglob("*.png"))) == 2)
            await settled(lambda: proxy.buffered_bytes)
            held = proxy.buffered_bytes
            frames = [await first.read_picture(), await second.read_picture()]
    assert held <= max(map(len, frames)) + 100
    assert [picture(json.loads(frame)["b64_json"]).size for frame in frames] == [(1024, 1024)] * 2


async def test_a_client_that_reads_nothing_is_disconnected(serve_images: Serve) -> None:
    proxy = slow_proxy(serve_images, write_timeout=0.3, heartbeat_interval=OFTEN)
    with capture_logs() as logs, reading(proxy, 2):
        await until(lambda: any(entry.get("outcome") == "client_stalled" for entry in logs))
        assert proxy.buffered_bytes == 0


async def test_a_stream_ends_when_its_client_leaves_after_the_generation(serve_images: Serve) -> None:
    proxy = slow_proxy(serve_images)
    with capture_logs() as logs:
        with reading(proxy, 2):
            await until(lambda: proxy.buffered_bytes > 0)
        await until(lambda: any(entry.get("outcome") == "client_gone" for entry in logs))
        assert proxy.buffered_bytes == 0


@contextmanager
def reading_a_large_frame(serve_images: Serve) -> Iterator[tuple[ProxyServer, SlowReader, MovableLoop]]:
    """Read from a proxy whose time a test can move. The seed gives a picture of 267372 characters."""
    loop = MovableLoop()
    proxy = slow_proxy(serve_images, loop=loop, write_timeout=WRITE_TIMEOUT)
    with reading(proxy, 1, side=2048, seed=1) as reader:
        yield proxy, reader, loop


async def read_twice(reader: SlowReader, size: int, loop: MovableLoop) -> None:
    """Read ``size`` bytes twice, together for longer than the write timeout."""
    for end in (size, 2 * size):
        while reader.read_bytes < end:
            await reader.read(end - reader.read_bytes)
        loop.move(0.6 * WRITE_TIMEOUT)


async def test_a_client_that_reads_a_frame_slowly_is_not_disconnected(serve_images: Serve) -> None:
    with capture_logs() as logs, reading_a_large_frame(serve_images) as (proxy, reader, loop):
        await until(lambda: proxy.buffered_bytes > 0)
        await read_twice(reader, ENOUGH, loop)
        assert proxy.buffered_bytes > 0, "the frame is too small"
        await reader.read_picture()
        await until(lambda: any("outcome" in entry for entry in logs))
    assert [entry["outcome"] for entry in logs if "outcome" in entry] == ["ok"]


async def test_a_client_that_reads_too_little_of_a_frame_is_disconnected(serve_images: Serve) -> None:
    with capture_logs() as logs, reading_a_large_frame(serve_images) as (proxy, reader, loop):
        await until(lambda: proxy.buffered_bytes > 0)
        await read_twice(reader, TOO_LITTLE, loop)
        await until(lambda: any(entry.get("outcome") == "client_stalled" for entry in logs))
        assert proxy.buffered_bytes == 0
