"""A client that does not read a stream: the proxy holds little of it, and Dify has to wait."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.api.chat_requests import chat_body
from tests.api.floods import PIECE, Flood, flooded_proxy
from tests.api.raw_client import settled
from tests.api.servers import raw_dify
from tests.limits import PATIENCE

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
@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("chat/completions", 64 * 1024),
        ("completions", 64 * 1024),
        ("responses", 64 * 1024),
        ("chat/completions", 8 * 1024),
    ],
)
async def test_a_client_that_does_not_read_pauses_dify(path: str, limit: int) -> None:
    """The proxy holds no more than the limit beyond the frame that is being written."""
    flood = Flood()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        async with raw_dify(flood, at=listener) as dify:
            with flooded_proxy(dify, stream_buffer=limit) as proxy:
                proxy.limit_send_buffers(KERNEL_BUFFER)
                client.connect(("127.0.0.1", proxy.port))
                client.sendall(request(path))
                await settled(lambda: flood.written)
                held = flood.written - bytes_in_kernel(listener.getsockname()[1], proxy.port)
                assert flood.written > 0
                assert held <= limit + len(PIECE)

                client.setblocking(False)
                paused_at = flood.written
                async with asyncio.timeout(PATIENCE):
                    while flood.written < paused_at + 1_000_000:  # once the client reads, Dify continues
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
