"""Event streams: the delayed status line, heartbeats, slow readers, and failures within a stream.

``EventStream`` sends the frames of a ``FrameSource``. The status line waits for the first frame, at most
``StreamTiming.grace``, so that an early failure has a real 4xx or 5xx. A later failure is the stream's last frame.

Frames are encoded and written inside the callback of the network read that brought them. The coroutine of a stream
only opens the source, awaits ``FrameSource.settle``, and ends the stream. The status line and the
heartbeats come from a timer, so they also come while the source is being opened, for example in a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.alarms import alarms_of
from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.api.responder import Responder, record_of, responder_of
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.settings.limits import LEAST_READ
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.turns.client import ClientDisconnected

RawHeaders = list[tuple[bytes, bytes]]

SSE_HEADERS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class StreamTiming(Struct, frozen=True):
    """``grace`` is the longest delay of the status line, ``interval`` the pause between heartbeats, both in seconds.

    ``kind`` is the form of heartbeats: ``chunk``, ``comment`` or ``off``. ``write_timeout`` is how many seconds a
    client may take to read ``LEAST_READ`` bytes, or all that was written.
    """

    grace: float
    interval: float
    kind: str
    write_timeout: float

    @property
    def beat(self) -> float | None:
        """The seconds of silence before a heartbeat; None without heartbeats."""
        return None if self.kind == "off" else self.interval


class FrameSource(Protocol):
    """The source of an event stream's frames. Until it is open, only the methods that return frames are called."""

    @property
    def ended(self) -> bool:
        """Whether ``settle`` returns the last frames, or has returned them."""

    @property
    def task_id(self) -> str | None:
        """Dify's id of the run, for the record of the request."""

    def headers(self) -> RawHeaders:
        """Return additional headers. Called once, when the status line is sent."""

    def opening(self) -> bytes:
        """Return the first frames of a stream that has no event yet when the grace period ends."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat of kind ``chunk``."""

    def failure(self, error: ProxyError) -> bytes:
        """Return the last frame of a stream that fails."""

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever ``poll`` may return more."""

    def poll(self) -> bytes | None:
        """Return the frames that are ready, often none; None if ``settle`` has to be awaited.

        Raises ProxyError for a failure that it does not encode as a frame itself, and ClientDisconnected.
        """

    async def settle(self) -> bytes:
        """Return the next frames, after waiting for something else than the next event. Raises as ``poll`` does."""

    def pause(self) -> None:
        """Stop producing frames, since the client does not read."""

    def resume(self) -> None:
        """Produce frames again."""


class EventStream:
    """An ASGI response that opens ``source`` by entering ``opened``, streams its frames, and closes it."""

    def __init__(self, source: FrameSource, opened: AbstractAsyncContextManager[object], timing: StreamTiming) -> None:
        self._source = source
        self._opened = opened
        self._timing = timing
        self._waiter: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = self._source
        record_of(scope).streamed = True
        sender = StreamSender(source, self._timing, responder_of(scope), self._wake)
        try:
            async with self._opened:
                await self._pump(sender)
        except ClientDisconnected:
            sender.record_departure()
        except asyncio.CancelledError:
            await self._fail(sender, shutting_down(), scope, receive, send)
        except ProxyError as error:
            await self._fail(sender, error, scope, receive, send)
        except Exception:
            await self._fail(sender, InternalError(INTERNAL_ERROR), scope, receive, send)
            raise
        finally:
            sender.close()

    async def _pump(self, sender: StreamSender) -> None:
        """Send all frames of the open source. Raises the errors of ``FrameSource.poll``."""
        sender.begin()
        while not self._source.ended:
            while not sender.is_due():
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            sender.write_settled(await self._source.settle())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _fail(self, sender: StreamSender, error: ProxyError, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the error as a response, or as the last frame if the stream has started."""
        if not sender.fail(error):
            await error_response(error)(scope, receive, send)


class StreamSender:
    """Sends one stream, by callbacks only.

    A single timer checks the grace period, the heartbeat and the write timeout. ``notify`` is called whenever
    ``is_due`` may have become true.
    """

    __slots__ = (
        "_alarms",
        "_began",
        "_closed",
        "_committed",
        "_error",
        "_loop",
        "_notify",
        "_open",
        "_paused",
        "_responder",
        "_settling",
        "_source",
        "_timer",
        "_timing",
        "_unsent",
        "_wrote_at",
        "stalled",
    )

    def __init__(
        self, source: FrameSource, timing: StreamTiming, responder: Responder, notify: Callable[[], None]
    ) -> None:
        self._source = source
        self._timing = timing
        self._responder = responder
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._began = self._wrote_at = self._loop.time()
        self._unsent = 0
        """The unsent bytes at ``_wrote_at``, or at a later time when a slow client had read a part of them."""
        self._open = False
        self._committed = False
        self._closed = False
        self._paused = False
        self._settling = False
        self._error: BaseException | None = None
        self._alarms = alarms_of(self._loop)
        self._timer = self._alarms.set(
            self._began + min(timing.grace or timing.interval, timing.interval), self._on_timer
        )
        if not timing.grace:
            self._loop.call_soon(self._send_opening)
        self.stalled = False

    def begin(self) -> None:
        """Send the frames of the source, which is open now."""
        self._open = True
        self._source.listen(self._read)
        self._responder.on_writable(self._continue)
        self._read()

    def is_due(self) -> bool:
        """Return whether ``FrameSource.settle`` has to be awaited. Raises the error that ended the reading."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # or its traceback would refer to this frame in a cycle
        if self._paused and self._responder.disconnected:
            raise ClientDisconnected
        return self._settling and not self._paused

    def write_settled(self, frames: bytes) -> None:
        """Write the frames that ``FrameSource.settle`` returned, and send those that follow."""
        source = self._source
        self._settling = False
        if frames or source.ended:
            self._write(frames, more=not source.ended)
        if not source.ended:
            self._read()

    def fail(self, error: ProxyError) -> bool:
        """Write the error as the last frame. Return False if the stream has not started, so that a response can."""
        self.close()
        if self._committed:
            self._responder.record.fail(error)
            self._write(self._source.failure(error), more=False)
        return self._committed

    def record_departure(self) -> None:
        """Record how the client left."""
        record = self._responder.record
        record.departure = "client_stalled" if self.stalled else "client_gone"
        record.task_id = self._source.task_id

    def close(self) -> None:
        """Stop the timer and the reading of the source."""
        self._alarms.cancel(self._timer)
        self._open = False
        self._closed = True
        self._notify = _nothing  # the callback refers to the owner, which refers to this object

    def _read(self) -> None:
        """Write the frames that are ready; notify if the source has to settle or failed."""
        if not self._open:
            return
        if self._paused and self._responder.disconnected:  # it reads no buffered bytes any more
            self._error = ClientDisconnected()
            self._notify()
            return
        if self._settling or self._paused:
            return
        try:
            frames = self._source.poll()
            if frames:
                self._write(frames, more=True)
        except BaseException as error:  # noqa: BLE001 - raised again in is_due
            self._error = error
            self._notify()
            return
        if frames is None:
            self._settling = True
            self._notify()

    def _write(self, frames: bytes, *, more: bool) -> None:
        responder = self._responder
        self._wrote_at = self._loop.time()
        if self._committed:
            writable = responder.write(frames, more=more)
        else:
            self._committed = True
            responder.start(200, SSE_HEADERS + self._source.headers(), frames, more=more)
            writable = responder.writable
        if self._open and not writable:
            self._paused = True
            self._unsent = responder.unsent_bytes
            self._source.pause()

    def _continue(self) -> None:
        """Continue after the client has read all written frames."""
        if self._paused:
            self._paused = False
            self._source.resume()
            if self._settling:
                self._notify()
            else:
                self._read()

    def _send_opening(self) -> None:
        if not (self._committed or self._closed):
            self._write(self._source.opening(), more=True)

    def _on_timer(self) -> None:
        """Send the status line or a heartbeat if it is time, or disconnect a client that does not read."""
        now = self._loop.time()
        if self._paused and (unsent := self._responder.unsent_bytes) <= self._unsent - LEAST_READ:
            self._unsent, self._wrote_at = unsent, now
        if now >= self._due(now):
            if not self._responder.writable:
                self.stalled = True
                self._responder.abort()
                return
            if not self._committed:
                self._write(self._source.opening(), more=True)
            else:
                self._write(COMMENT if self._timing.kind == "comment" else self._source.heartbeat(), more=True)
        wait = min(self._due(now) - now, self._timing.interval)
        self._timer = self._alarms.set(now + max(wait, 0.001), self._on_timer)

    def _due(self, now: float) -> float:
        """Return when the write timeout, the grace period or the silence before a heartbeat ends."""
        timing = self._timing
        if not self._responder.writable:
            return self._wrote_at + timing.write_timeout
        if not self._committed:
            return self._began + timing.grace
        beat = timing.beat
        if beat is None or self._settling or self._source.ended:  # no heartbeat may overtake frames that are encoded
            return now + timing.write_timeout
        return self._wrote_at + beat


def _nothing() -> None:
    pass


def sse_response(frames: bytes) -> Response:
    """Return an event stream of placeholder events."""
    response = Response(frames)
    response.raw_headers = [*SSE_HEADERS]
    return response
