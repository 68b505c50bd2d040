"""A tiny HTTP server whose answers are exact bytes, written by the test."""

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
    """A request as it came in."""

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
    """``connections`` counts those that were made, with or without a request."""

    origin: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def asked(self, method: str, path: str = "") -> list[Request]:
        """The requests of that method whose path ends so."""
        return [one for one in self.requests if one.method == method and one.target.partition("?")[0].endswith(path)]

    async def came(self, count: int) -> None:
        """Waits until so many requests have come in all."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    async def note(self, request: Request) -> None:
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
                await server.note(request)
                await answer(request, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except ConnectionError:
            pass  # the client left, which is what some tests want
        finally:
            writer.close()

    async with serving(serve, host) as port:
        server.origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        yield server


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the connection's end."""
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


def told(status: int, body: Any = b"", *headers: str) -> Answer:
    """Always the same answer; what is not bytes is told as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer(status, data, "application/json", *headers))

    return answer


def raw(*pieces: bytes, end: bool = True) -> Answer:
    """Exact bytes, after which the connection is closed, or kept open for ever."""

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
    return told(status, b"", f"Location: {location}")


async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
    """A body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


def by_path(answers: dict[str, Answer]) -> Answer:
    """Answers by ``METHOD /path``, or by path alone; what is not among them is a 404."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        path = request.target.partition("?")[0]
        chosen = answers.get(f"{request.method} {path}") or answers.get(path) or told(404, {"detail": "Not found"})
        await chosen(request, writer)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One after the other, the last one for ever."""
    left = list(answers)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return answer
