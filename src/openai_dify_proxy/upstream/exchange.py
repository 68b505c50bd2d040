"""One request to an upstream and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec import field

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.translate.connection_errors import ServerAddress, describe_failure
from openai_dify_proxy.upstream.connection_errors import CannotConnect
from openai_dify_proxy.upstream.endpoints import Endpoint

if TYPE_CHECKING:
    from openai_dify_proxy.upstream.connection import UpstreamConnection
    from openai_dify_proxy.upstream.http import HttpClient

RESEND_WINDOW = 0.5
TASK_SECONDS = 0.0002
"""About how long a task works on a read."""

LARGE_REQUEST = 64 * 1024
"""Bytes; the memory of larger requests is freed once they can no longer be sent again."""


class Exchange(Entity):
    """One request and the received part of its answer.

    ``status`` is None until the headers have arrived. ``ended`` is true once no more bytes will arrive, and ``broken``
    if the connection died before the answer was complete. ``listener`` is called instead of waking ``wait``.
    ``answered_in_tls`` is true if a plain connection received a TLS alert, ``head_too_large`` if the headers exceeded
    ``MAX_HEAD_BYTES``. ``at_end`` is called once the exchange no longer has a connection, with whether it was
    aborted from this side. ``sent_at`` is when the request was sent, by ``perf_counter``, and ``connecting`` how many
    seconds the connection took before, 0 for an idle one.
    """

    _client: HttpClient
    _endpoint: Endpoint
    _request: Sequence[bytes | bytearray]
    loop: asyncio.AbstractEventLoop
    _connection: UpstreamConnection | None = None
    _body: list[bytes] = field(default_factory=list)
    _size: int = 0
    _awake: bool = False
    _late: bool = False
    """Whether the reader waits in line to be woken; it has one place there, however many reads arrive."""
    _waiter: asyncio.Future[None] | None = None
    _discard: bool = False
    listener: Callable[[], None] | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    broken: bool = False
    answered_in_tls: bool = False
    head_too_large: bool = False
    sent_at: float = 0.0
    connecting: float = 0.0
    at_end: Callable[[bool], None] | None = None

    async def wait(self) -> None:
        """Wait until bytes arrived, the answer ended, or ``wake`` was called since the last return."""
        if not self._awake:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._awake = False

    def wake(self) -> None:
        """Call the listener, or let ``wait`` return."""
        if self.listener is not None:
            self.listener()
            return
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            self._client.listening.charge(TASK_SECONDS)

    @property
    def has_news(self) -> bool:
        """Whether anything has arrived, or nothing will."""
        return self.ended or self.status is not None

    def take(self) -> bytes:
        """Return the body bytes that arrived since the last call."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        if self._size > self._client.stream_buffer:
            self.resume()
        self._size = 0
        return data

    def pause(self) -> None:
        """Stop reading from the upstream, since what it sends cannot be passed on."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._connection is not None:
            self._connection.resume()

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body; stop reading after about ``limit`` bytes."""
        parts = [self.take()]
        size = len(parts[0])
        while not self.ended and size < limit:
            await self.wait()
            parts.append(self.take())
            size += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Abort the exchange and discard unread bytes."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._late = False
        if not self.ended:
            self._end(aborted=True)

    def linger(self, seconds: float) -> None:
        """Discard the rest of the answer; the connection is reused if the answer ends within ``seconds``."""
        if self._connection is not None:
            self._discard = True
            self.listener = None
            self._body.clear()
            self._connection.resume()
            self.loop.call_later(seconds, self.close)

    def describe_missing_answer(self, service: str, setting: str, *, expects_https: bool = False) -> str:
        """Return, in sentences for the operator, why the exchange has no answer, or only that HTTPS is expected."""
        origin = self._endpoint.origin
        server = ServerAddress(service, origin.host, origin.port, setting)
        if expects_https or self.answered_in_tls:
            return describe_failure("https", server)
        return describe_failure("closed_plain" if origin.scheme == "http" else "closed", server)

    def send(self, connection: UpstreamConnection) -> None:
        """Send the request."""
        self._connection = connection
        self.sent_at = perf_counter()
        connection.start(self, self._request)
        if len(self._request) > 1:
            self.loop.call_later(RESEND_WINDOW, self._drop_request)

    def _drop_request(self) -> None:
        self._request = ()

    # Called by the connection

    def on_headers(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._request = ()  # an answered request is not sent again

    def on_body(self, parts: list[bytes], size: int) -> None:
        """Take ``parts`` out of their list, from a read of ``size`` bytes. A late reader takes earlier ones first."""
        if self._late:
            self.wake()
        if not self._discard:
            self._body += parts
            self._size += size
        parts.clear()

    def on_read(self) -> None:
        """Wake the reader after a read, and pause reading if it leaves too much unread.

        If others have used up the slice of time, it is woken in a later iteration of the loop.
        """
        listening = self._client.listening
        if listening.has_time():
            self.wake()
        elif not self._late:
            self._late = True
            listening.defer(self._wake_late)
        if self._size > self._client.stream_buffer:
            self.pause()

    def on_end(self, *, broken: bool, reused: bool, silent: bool) -> None:
        self._connection = None
        if broken and reused and silent and self._request and perf_counter() - self.sent_at < RESEND_WINDOW:
            self._client.spawn(self._resend())
            return
        self.broken = broken
        self._end()
        self.on_read()  # the end counts as news

    def _wake_late(self) -> None:
        if self._late:
            self._late = False
            self.wake()

    def _end(self, *, aborted: bool = False) -> None:
        self.ended = True
        if self.at_end is not None:
            at_end, self.at_end = self.at_end, None
            at_end(aborted)

    async def _resend(self) -> None:
        try:
            connection = await self._client.connect(self._endpoint.origin)
        except CannotConnect:
            self.broken = True
            self._end()
            self.wake()
            return
        if self.ended:
            connection.abort()
            return
        self._connection = connection
        connection.start(self, self._request)
