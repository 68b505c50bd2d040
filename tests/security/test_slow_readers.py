"""A client that does not read a stream: the proxy holds little of it, and Dify has to wait."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from openai_dify_proxy.settings import Settings
from tests.api.chat_requests import chat_body
from tests.api.raw_client import settled
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

PIECE = chunk(message_frame("x" * 4000))

HELD_BYTES = 64 * 1024 + len(PIECE)
"""The most that a stream may hold: 64 KiB beyond the frame that is being written."""

KERNEL_BUFFER = 16 * 1024


def bytes_in_kernel(*ports: int) -> int:
    """Return the bytes in the send and receive queues of all connections from or to these ports."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if {int(address.partition(":")[2], 16) for address in (local, remote)} & {*ports}:
            total += sum(int(size, 16) for size in queues.split(":"))
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the sizes of sockets' queues")
@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
async def test_a_client_that_does_not_read_pauses_dify(path: str) -> None:
    written = 0

    async def flood(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has all bytes
        writer.write(SSE_HEAD)
        while True:
            writer.write(PIECE)
            await writer.drain()
            written += len(PIECE)

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        async with raw_dify(flood, at=listener) as dify:
            settings = Settings(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
            with ProxyServer(settings) as proxy:
                proxy.limit_send_buffers(KERNEL_BUFFER)
                client.connect(("127.0.0.1", proxy.port))
                client.sendall(request(path))
                await settled(lambda: written)
                held = written - bytes_in_kernel(listener.getsockname()[1], proxy.port)
                assert written > 0
                assert held <= HELD_BYTES

                client.setblocking(False)
                paused_at = written
                async with asyncio.timeout(PATIENCE):
                    while written < paused_at + 1_000_000:  # once the client reads, Dify continues
                        assert await asyncio.get_running_loop().sock_recv(client, 1 << 16)
                client.close()
                await asyncio.wait_for(dify.stopped.wait(), PATIENCE)


def request(path: str) -> bytes:
    body = json.dumps({**chat_body("hi", "raw", stream=True), "prompt": "hi", "input": "hi"}).encode()
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
