"""Event streams: the delayed status line, heartbeats, slow readers, and failures within a stream.

``EventStream`` sends the frames of a ``FrameSource``. The status line waits for the first frame, at most
``StreamTiming.grace``, so that an early failure has a real 4xx or 5xx. A later failure is the stream's last frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog
from msgspec import Struct
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, log_detail, shutting_down
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.turns.client import ClientDisconnected

log = structlog.get_logger(__name__)

RawHeaders = list[tuple[bytes, bytes]]

SSE_HEADERS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

WRITE_TIMEOUT_SECONDS = 60.0
"""A client that reads nothing for this long is disconnected."""


class StreamTiming(Struct, frozen=True):
    """``grace`` is the longest delay of the status line, ``interval`` the pause between heartbeats, both in seconds.

    ``kind`` is the form of heartbeats: ``chunk``, ``comment`` or ``off``.
    """

    grace: float
    interval: float
    kind: str

    @property
    def beat(self) -> float | None:
        """The seconds of silence before a heartbeat; None without heartbeats."""
        return None if self.kind == "off" else self.interval


class FrameSource(Protocol):
    """The source of an event stream's frames."""

    @property
    def ended(self) -> bool:
        """Whether ``next`` has returned the last frame."""

    @property
    def task_id(self) -> str | None:
        """Dify's id of the run, for the log."""

    async def next(self, wake_at: float | None) -> bytes | None:
        """Return the next frames, which may be empty; None if ``wake_at`` (in the loop's time) passed first.

        Raises ProxyError for a failure that it does not encode as a frame itself, and ClientDisconnected.
        """

    def headers(self) -> RawHeaders:
        """Return additional headers. Called once, when the status line is sent."""

    def opening(self) -> bytes:
        """Return the first frames of a stream that has no event yet when the grace period ends."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat of kind ``chunk``."""

    def failure(self, error: ProxyError) -> bytes:
        """Return the last frame of a stream that fails."""


class EventStream:
    """An ASGI response that opens ``source``, streams its frames, and closes it."""

    def __init__(self, source: AbstractAsyncContextManager[FrameSource], timing: StreamTiming) -> None:
        self._source = source
        self._timing = timing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._source as source:
            sender = _Sender(source, self._timing, scope, receive, send)
            try:
                await sender.pump()
            except ClientDisconnected:
                log.info("client_disconnected", task_id=source.task_id)
            except asyncio.CancelledError:
                if sender.timed_out:
                    log.info("client_stalled", task_id=source.task_id)
                    raise
                await sender.fail(shutting_down())
            except ProxyError as error:
                await sender.fail(error)
            except Exception:
                await sender.fail(InternalError(INTERNAL_ERROR))
                raise
            finally:
                sender.close()


class _Sender:
    """Sends one stream."""

    def __init__(self, source: FrameSource, timing: StreamTiming, scope: Scope, receive: Receive, send: Send) -> None:
        self._source = source
        self._timing = timing
        self._scope = scope
        self._receive = receive
        self._send = send
        self._committed = False
        self._timeout = WriteTimeout()

    @property
    def timed_out(self) -> bool:
        return self._timeout.expired

    async def pump(self) -> None:
        """Send all frames of the source. Raises the errors of ``FrameSource.next``."""
        source = self._source
        clock = asyncio.get_running_loop().time
        beat = self._timing.beat
        wake_at: float | None = clock() + self._timing.grace
        while True:
            frames = await source.next(wake_at)
            ended = source.ended
            if frames is None:
                frames = self._heartbeat() if self._committed else source.opening()
            elif not frames and not ended:
                continue
            if not self._committed:
                await self._commit()
            await self._write(frames, more=not ended)
            if ended:
                return
            wake_at = None if beat is None else clock() + beat

    async def fail(self, error: ProxyError) -> None:
        """Send the error as a response, or as the last frame if the stream has started."""
        if self._committed:
            log_detail(error)
            await self._write(self._source.failure(error), more=False)
        else:
            await error_response(error)(self._scope, self._receive, self._send)

    def close(self) -> None:
        self._timeout.stop()

    def _heartbeat(self) -> bytes:
        return COMMENT if self._timing.kind == "comment" else self._source.heartbeat()

    async def _commit(self) -> None:
        self._committed = True
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + self._source.headers()}
        )

    async def _write(self, body: bytes, *, more: bool) -> None:
        self._timeout.begin()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._timeout.end()


class WriteTimeout:
    """Cancels the task that created it if one write to the client takes longer than ``seconds``.

    One timer serves all writes of a stream: it checks at intervals how long the current write has taken.
    """

    __slots__ = ("_handle", "_loop", "_seconds", "_since", "_task", "expired")

    def __init__(self, seconds: float = WRITE_TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._since: float | None = None
        self._handle: asyncio.Handle | None = None
        self.expired = False

    def begin(self) -> None:
        self._since = self._loop.time()
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._check)

    def end(self) -> None:
        self._since = None

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _check(self) -> None:
        waited = 0.0 if self._since is None else self._loop.time() - self._since
        if waited >= self._seconds and self._task is not None:
            self.expired = True
            self._task.cancel()
            return
        self._handle = self._loop.call_later(self._seconds - waited, self._check)


def sse_response(frames: bytes | AsyncIterator[bytes]) -> Response:
    """Return an event stream without a turn: placeholder or stored events."""
    response = Response(frames) if isinstance(frames, bytes) else StreamingResponse(frames)
    response.raw_headers = [*SSE_HEADERS]
    return response
