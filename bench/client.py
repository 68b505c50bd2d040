"""A low-overhead HTTP/1.1 client: persistent connections, one request at a time, bodies collected without decoding."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
from typing_extensions import override

from bench.scenarios import OPENING

_FIRST_TEXT = OPENING.encode()


@dataclass(slots=True)
class Answer:
    """A response and its times, from `time.perf_counter`."""

    asked_at: float
    status: int = 0
    parts: list[bytes] = field(default_factory=list)
    first_text_at: float | None = None
    ended_at: float = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class ConnectionLost(Exception):
    """The target closed a connection before its response was complete."""


class Connection(asyncio.Protocol):
    """One connection. `ask` sends a request; await `first_text` (of a stream) and `whole`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer = Answer(asked_at=0)
        self.first_text: asyncio.Future[None] = loop.create_future()
        self.whole: asyncio.Future[Answer] = loop.create_future()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        if self._transport is None:
            raise ConnectionLost("the target closed the connection between two requests")
        self._answer = Answer(asked_at=time.perf_counter())
        self.first_text = self._loop.create_future()
        self.whole = self._loop.create_future()
        self._transport.write(request)
        return self.whole

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for waiting in (self.first_text, self.whole):
            if not waiting.done():
                waiting.set_exception(ConnectionLost(f"the target closed the connection: {exc}"))
                waiting.exception()  # marks it as retrieved; there may be no waiter

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        answer.parts.append(body)
        if answer.first_text_at is None and (_FIRST_TEXT in body or _FIRST_TEXT in answer.body):
            answer.first_text_at = time.perf_counter()
            self.first_text.set_result(None)

    def on_message_complete(self) -> None:
        self._answer.ended_at = time.perf_counter()
        if not self.first_text.done():
            self.first_text.set_result(None)
        if not self.whole.done():  # else its waiter was cancelled
            self.whole.set_result(self._answer)


async def connect(host: str, port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(loop), host, port)
    return connection


def request(method: str, host: str, path: str, *, body: bytes = b"", key: str = "") -> bytes:
    """Return the bytes of a request with a JSON body."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Accept: application/json",
        "Content-Type: application/json",
        "User-Agent: bench",
        f"Content-Length: {len(body)}",
    ]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body
