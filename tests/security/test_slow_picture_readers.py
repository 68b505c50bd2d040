"""A client that does not read the pictures of a stream: the proxy encodes one at a time, and not for ever."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.testing import capture_logs

from openai_dify_proxy_demo.replicate.log import ReplicateLog
from tests.api.image_requests import SDXL, picture
from tests.api.raw_client import settled, until
from tests.api.servers import ProxyServer
from tests.limits import PATIENCE

Serve = Callable[..., ProxyServer]

KERNEL_BUFFER = 8 * 1024

OFTEN = 0.05
"""The interval of heartbeats, and so of the timer that checks the write timeout."""

END_OF_FRAME = b"\n\n"
PICTURE = b"event: image_generation.completed\ndata: "


class SlowReader:
    """A client that streams pictures and reads only when told."""

    def __init__(self, proxy: ProxyServer, pictures: int, side: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        self.socket.connect(("127.0.0.1", proxy.port))
        body = json.dumps(
            {"model": SDXL, "prompt": "A fox SETTLED", "size": f"{side}x{side}", "n": pictures, "stream": True}
        ).encode()
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        self.socket.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
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
def reading(proxy: ProxyServer, pictures: int, side: int = 1024) -> Iterator[SlowReader]:
    reader = SlowReader(proxy, pictures, side)
    with reader.socket:
        yield reader


def slow_proxy(serve_images: Serve, **settings: float) -> ProxyServer:
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


async def test_a_client_that_reads_a_frame_slowly_is_not_disconnected(serve_images: Serve) -> None:
    """It takes longer than the write timeout for one frame, and reads 64 KiB each second."""
    seconds = 3.0
    proxy = slow_proxy(serve_images, write_timeout=seconds, heartbeat_interval=OFTEN)
    with capture_logs() as logs, reading(proxy, 1, side=2048) as reader:
        await until(lambda: proxy.buffered_bytes > 0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + seconds + 0.5:
            while reader.read_bytes < (loop.time() - began) * 64 * 1024:
                await reader.read(1024)
            await asyncio.sleep(0.01)
        assert proxy.buffered_bytes > 0, "the frame was read too fast"
        await reader.read_picture()
    assert not any(entry.get("outcome") == "client_stalled" for entry in logs)
