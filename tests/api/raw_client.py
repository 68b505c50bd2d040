"""A client on a plain socket, and functions that poll a condition."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

from tests.api.chat_requests import chat_body
from tests.limits import PATIENCE


class Client:
    """A client on a plain socket, which can close or reset its connection at any time.

    ``receive_buffer`` is the size of the kernel's buffer, in bytes.
    """

    def __init__(self, port: int, path: str = "/v1/chat/completions", *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._path = path
        self._receive_buffer = receive_buffer
        self.seen = b""

    async def ask(self, text: str, model: str, **more: object) -> None:
        body = json.dumps({**chat_body(text, model, **more), "prompt": text}).encode()
        self._reader, self._writer = await asyncio.open_connection(sock=await self._connect())
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; none at the end of the connection."""
        return await self._reader.read(size)

    async def read_exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        return await self._reader.readexactly(size)

    async def read_until(self, text: bytes) -> None:
        while text not in self.seen:
            data = await self._reader.read(65536)
            assert data, self.seen
            self.seen += data

    async def disconnect(self, *, reset: bool = False) -> None:
        """Close the connection, or reset it."""
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()
        await asyncio.wait_for(self._closed(), PATIENCE)

    async def _connect(self) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        if self._receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        return connection

    async def _closed(self) -> None:
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # a reset connection raises this


async def until(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Poll a condition that has no event to wait for."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.01)


async def settled(value: Callable[[], int]) -> None:
    """Wait until a number has not changed for a quarter of a second."""
    last, still = -1, 0
    async with asyncio.timeout(PATIENCE):
        while still < 25:
            now = value()
            still = still + 1 if now == last else 0
            last = now
            await asyncio.sleep(0.01)
