"""One request and its response on a client connection, on uvicorn's, with merged writes that do not wait."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import field
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.server.flow import Flow
from openai_dify_proxy.server.lazy_event import LazyEvent
from openai_dify_proxy.telemetry.records import RequestRecord
from openai_dify_proxy.turns.client import EXTENSION

if TYPE_CHECKING:
    from openai_dify_proxy.server.protocol import Connection, Shortcut

MERGED_BYTES = 64 * 1024
"""The largest body that is copied behind the response head; a larger one is handed to the transport as it is."""

_MORE_FOLLOWS = socket.MSG_MORE if sys.platform == "linux" else 0
_NOT_IN_VALUES = bytes({*range(0x20), 0x7F} - {0x09})
_NOT_IN_NAMES = bytes({*range(0x21), 0x7F, *b'()<>@,;:\\[]={}"'})
"""Bytes that a header may not hold."""

Headers = Sequence[tuple[bytes, bytes]]


class ResponseWriter(Entity):
    """Writes one response without waiting, and reports that the client disconnects or reads again.

    ASGI's own ways would need a task, a coroutine or a wrapper for each. It loses its request when the response is
    complete or the client disconnects: with the reference back from the scope, each request would leave a cycle to the
    garbage collector.
    """

    _cycle: Cycle | None
    disconnected: bool = False
    status: int = 0
    """The status of the response; 0 before it has started."""
    record: RequestRecord = field(default_factory=RequestRecord)
    add_headers: list[Callable[[], Headers]] = field(default_factory=list)
    """Functions that return further headers, called when the response starts."""
    _on_disconnect: Callable[[], object] | None = None

    @property
    def writable(self) -> bool:
        """Whether the client has read all that was written, as far as the sockets' buffers tell."""
        return self._cycle is None or not self._cycle.flow.write_paused

    @property
    def unsent_bytes(self) -> int:
        """The bytes that were written and that the kernel has not taken yet."""
        return 0 if self._cycle is None else self._cycle.transport.get_write_buffer_size()

    @property
    def has_room(self) -> bool:
        """Whether the bytes that wait for slow clients, those of other responses included, are within their limit."""
        return self._cycle is None or self._cycle.flow.buffers.below_limit

    def when_room(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once ``has_room`` is true, at once if it is, even if the client has disconnected."""
        if self._cycle is None:
            callback()
        else:
            self._cycle.flow.buffers.when_below_limit(callback)

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has. Replaces an earlier one."""
        if self.disconnected:
            callback()
        elif self._cycle is not None:
            self._on_disconnect = callback

    def on_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` whenever the response becomes writable again. Replaces an earlier one."""
        if self._cycle is not None:
            self._cycle.flow.on_writable = callback

    def start(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Write the head and the first part of the body, which is the whole body unless ``more``."""
        if self._cycle is not None:
            self._cycle.start(status, headers)
            self._cycle.write_body(body, more=more)

    def write(self, body: bytes, *, more: bool) -> bool:
        """Write a part of the body, the last one unless ``more``. Return whether the response is ``writable`` then.

        Does nothing after the client disconnected.
        """
        cycle = self._cycle
        if cycle is None:
            return True
        cycle.write_body(body, more=more)
        return not (more and cycle.flow.write_paused)

    def abort(self) -> None:
        """Close the connection at once, which counts as a disconnect of the client."""
        if self._cycle is not None:
            self._cycle.transport.abort()

    def report_disconnect(self) -> None:
        """Record that the client disconnected."""
        self.disconnected = True
        callback = self._on_disconnect
        self.release()
        if callback is not None:
            callback()

    def release(self) -> None:
        """Forget the request."""
        if self._cycle is not None:
            self._cycle.flow.on_writable = None
        self._cycle = self._on_disconnect = None
        self.add_headers.clear()


class Cycle(RequestResponseCycle):
    """One request and its response; the head leaves together with the first part of the body."""

    logger = logging.getLogger("uvicorn.error")
    flow: Flow
    message_event: LazyEvent | None = None  # type: ignore[assignment]  # None until the application serves the request
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    head = b""
    """The bytes that began with the request's head, if the head may become a known one."""
    chunked_encoding: bool | None = None
    expected_content_length = 0
    _head = b""
    _announces_end = False

    def __init__(
        self, connection: Connection, shortcut: Shortcut | None, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        """``shortcut`` may serve the request once its body is complete."""
        # Sets what the base class sets, except what never changes here.
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects_continue
        self.body = bytearray()

        self._loop = connection.loop
        self._too_much_left = connection.too_much_left
        self.shortcut = shortcut
        self.tasks = connection.tasks
        self.responder = responder = ResponseWriter(self)
        self.record = responder.record

    def prepare_for_app(self, app_state: dict[str, Any]) -> None:
        """Complete what the application needs: the scope, and the event that ``receive`` waits for."""
        self.scope["state"] = app_state.copy()
        self.scope["extensions"] = {EXTENSION: {"responder": self.responder}}
        self.message_event = LazyEvent()
        if self.body or not self.more_body:
            self.message_event.set()

    def disconnect(self) -> None:
        """End the request without a response, since its client disconnected."""
        if self.disconnected or self.response_complete:
            return
        self.disconnected = True
        if self.message_event is not None:
            self.message_event.set()
        self.responder.report_disconnect()

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
            self.start(message["status"], list(message.get("headers", ())))
            self._loop.call_soon(self._write_head)  # for a response whose body is late
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self.write_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")

    def start(self, status: int, headers: Headers) -> None:
        """Encode the head, which leaves with the next part of the body."""
        self.response_started = True
        self.waiting_for_100_continue = False
        responder = self.responder
        responder.status = status
        self.record.first_byte = perf_counter()
        all_headers = [*self.default_headers, *headers]
        for hook in responder.add_headers:
            all_headers += hook()
        responder.add_headers.clear()
        self._head = self._encode_head(status, all_headers)

    def write_body(self, body: bytes, *, more: bool) -> None:
        """Write a part of the body, after the head if that was not written yet."""
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
        if not (more or self.keep_alive or self._announces_end):
            _write_with_end(self.transport, head + body)
        elif len(body) <= MERGED_BYTES:
            self.transport.write(head + body if head else body)
        else:
            self.transport.writelines((head, body) if head else (body,))
        if self.flow.reserved:
            self.flow.release_reserved()
        if not more:
            self._complete()

    def _encode_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        pieces: list[bytes] = []
        for name, value in headers:
            pieces += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                self._announces_end = True
        names, values = b"".join(pieces[::4]), b"".join(pieces[2::4])
        if names.translate(None, _NOT_IN_NAMES) != names or values.translate(None, _NOT_IN_VALUES) != values:
            raise RuntimeError("invalid HTTP header")
        if not self._announces_end and (not self.keep_alive or (self.more_body and self._too_much_left())):
            self._announces_end = True
            pieces.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            pieces.append(b"transfer-encoding: chunked\r\n")
        return b"".join((STATUS_LINE[status], *pieces, b"\r\n"))

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("response shorter than its Content-Length")
        self.response_complete = True
        if self.message_event is not None:
            self.message_event.set()
        self.responder.release()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _write_head(self) -> None:
        if self._head and not self.disconnected:
            self.transport.write(self._head)
            self._head = b""


def _write_with_end(transport: asyncio.Transport, data: bytes) -> None:
    """Write the last bytes of a connection, and end it in the same packet.

    The head of the response has not announced the end. A client that sees it with the last byte does not reuse the
    connection; a moment later it may have sent the next request. The transport would end it in a later step of the
    loop.
    """
    sent = 0
    if not transport.get_write_buffer_size():
        own = transport.get_extra_info("socket").fileno()
        with suppress(OSError), socket.socket(fileno=os.dup(own)) as same:  # full, or the client has disconnected
            sent = same.send(data, _MORE_FOLLOWS)
            if sent == len(data):
                same.shutdown(socket.SHUT_WR)
    if sent < len(data):
        transport.write(data[sent:])
