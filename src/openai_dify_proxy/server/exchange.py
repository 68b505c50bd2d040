"""One request and its response on a client connection, on uvicorn's, with merged writes and a report of disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from openai_dify_proxy.server.protocol import Connection

EXTENSION: Final = "openai_dify_proxy.disconnect"
"""The ASGI extension with the ``Disconnection`` of a request. ASGI itself would need a task that waits."""

MERGED_BYTES = 64 * 1024
"""The largest body that is copied behind the response head; a larger one is handed to the transport as it is."""


class Disconnection:
    """Whether the client of one request has disconnected.

    It refers to nothing of the request: with a reference back from the scope, each request would leave a cycle to the
    garbage collector.
    """

    def __init__(self) -> None:
        self.reported = False
        self._callback: Callable[[], object] | None = None

    def on_report(self, callback: Callable[[], object] | None) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has; None for no callback."""
        self._callback = callback
        if callback is not None and self.reported:
            callback()

    def report(self) -> None:
        """Record that the client disconnected."""
        self.reported = True
        if self._callback is not None:
            self._callback()


class Flow(FlowControl):
    """Reading stays paused while data that has arrived waits to be parsed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False

    def hold(self, held: bool) -> None:
        if held:
            self.pause_reading()
        released = self._held and not held
        self._held = held
        if released:
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()


class Cycle(RequestResponseCycle):
    """One request and its response; the head leaves together with the first part of the body."""

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        super().__init__(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._loop = connection.loop
        self._head = b""
        self._disconnection = Disconnection()
        self.scope["extensions"] = {EXTENSION: {"disconnection": self._disconnection}}

    def disconnect(self) -> None:
        """End the request without a response, since its client disconnected."""
        if self.disconnected or self.response_complete:
            return
        self.disconnected = True
        self.message_event.set()
        self._disconnection.report()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if not self.more_body:
            self.flow.resume_reading()  # a paused transport does not report that the client disconnects
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._encode_head(message["status"], [*self.default_headers, *message.get("headers", ())])
            self._loop.call_soon(self._write_head)  # for a response whose body is late
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")

    def _encode_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        parts = [STATUS_LINE[status]]
        closes = False
        for name, value in headers:
            if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                raise RuntimeError("invalid HTTP header")
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                closes = True
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive and not closes:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _send_body(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk if more else chunk + b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("response longer than its Content-Length")
        if len(body) <= MERGED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body) if head else (body,))
        if not more:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("response shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _write_head(self) -> None:
        if self._head and not self.disconnected:
            self.transport.write(self._head)
            self._head = b""
