"""A minimal HTTP server whose answers are exact bytes, written by the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.api.servers import http_answer, serving
from tests.limits import PATIENCE


@dataclass(frozen=True)
class Request:
    """A request as received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """A server's requests; ``connections`` also counts connections without a request."""

    origin: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def requests_to(self, method: str, path: str = "") -> list[Request]:
        """Return the requests with this method whose path ends with ``path``."""
        return [one for one in self.requests if one.method == method and one.target.partition("?")[0].endswith(path)]

    async def wait_for_requests(self, count: int) -> None:
        """Wait until ``count`` requests have arrived in total."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    async def record(self, request: Request) -> None:
        async with self._news:
            self.requests.append(request)
            self._news.notify_all()


@asynccontextmanager
async def raw_server(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[RawServer]:
    server = RawServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                await server.record(request)
                await answer(request, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except ConnectionError:
            pass  # expected in tests whose client disconnects
        finally:
            writer.close()

    async with serving(serve, host) as port:
        server.origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        yield server


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Read the next request; return None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


def reply(status: int, body: Any = b"", *headers: str) -> Answer:
    """Answer every request with this body; values other than bytes are encoded as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer(status, data, "application/json", *headers))

    return answer


def raw(*pieces: bytes, end: bool = True) -> Answer:
    """Answer with exact bytes, then close the connection, or leave it open if ``end`` is false."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end:
            writer.close()
        else:
            await asyncio.Event().wait()

    return answer


def moved(location: str, status: int = 302) -> Answer:
    return reply(status, b"", f"Location: {location}")


async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


def by_path(answers: dict[str, Answer]) -> Answer:
    """Choose the answer by ``METHOD /path`` or by path alone; other requests get a 404."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        path = request.target.partition("?")[0]
        chosen = answers.get(f"{request.method} {path}") or answers.get(path) or reply(404, {"detail": "Not found"})
        await chosen(request, writer)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Send the answers in order and repeat the last one."""
    remaining = list(answers)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (remaining.pop(0) if len(remaining) > 1 else remaining[0])(request, writer)

    return answer
