"""Streams of audio requests: the events of a transcription, and spoken audio with back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.api.generation import queue_headers
from openai_dify_proxy.api.responder import Responder, responder_of
from openai_dify_proxy.api.streaming import SSE_HEADERS, RawHeaders
from openai_dify_proxy.audio.service import AudioCall, Speech
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.settings.limits import LEAST_READ
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error_frame
from openai_dify_proxy.translate.openai.speech import encode_speech_delta, encode_speech_done
from openai_dify_proxy.translate.openai.transcriptions import encode_transcript_events
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import ClientDisconnected

log = structlog.get_logger(__name__)


class TranscriptFrames:
    """The frames of a streamed transcription, a ``FrameSource``. ``transcribe`` makes the call and returns the text."""

    def __init__(self, transcribe: Callable[[], Awaitable[str]], call: AudioCall) -> None:
        self.ended = False
        self.task_id: str | None = None
        self._transcribe = transcribe
        self._call = call
        self._listener: Callable[[], None] | None = None
        self._text: str | ProxyError | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Transcribe within the block."""
        work = asyncio.get_running_loop().create_task(self._work())
        try:
            yield
        finally:
            self._listener = None
            work.cancel()

    def headers(self) -> RawHeaders:
        return queue_headers(self._call.wait)

    def opening(self) -> bytes:
        return COMMENT

    def heartbeat(self) -> bytes:
        return COMMENT

    def failure(self, error: ProxyError) -> bytes:
        return encode_error_frame(error)

    def listen(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def poll(self) -> bytes | None:
        if self._call.client.disconnected:
            raise ClientDisconnected
        return b"" if self._text is None else None

    async def settle(self) -> bytes:
        """Return all events, or raise the error of the call."""
        if isinstance(self._text, ProxyError):
            raise self._text
        assert self._text is not None
        self.ended = True
        return encode_transcript_events(self._text)

    def pause(self) -> None:
        """Do nothing: there is one frame, and it is small."""

    def resume(self) -> None:
        """Do nothing, as ``pause``."""

    async def _work(self) -> None:
        try:
            self._text = await self._transcribe()
        except ProxyError as error:
            self._text = error
        except ClientDisconnected:
            pass  # ``poll`` raises it
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            self._text = InternalError(INTERNAL_ERROR)
        if self._listener is not None:
            self._listener()


class SpeechStream:
    """An ASGI response that opens a speech and sends it, as a file or as ``events``.

    The status line waits for the first audio, so that a failure before it has its own status. A later failure breaks
    off the response, or is the last event. A client that reads less than ``LEAST_READ`` bytes, and not all, within
    ``write_timeout`` seconds is disconnected.
    """

    def __init__(
        self, opened: AbstractAsyncContextManager[Speech], wait: TurnWait, write_timeout: float, *, events: bool
    ) -> None:
        self._opened = opened
        self._wait = wait
        self._write_timeout = write_timeout
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        responder = responder_of(scope)
        try:
            async with self._opened as speech:
                await self._send(speech, responder)
        except ClientDisconnected:
            responder.record.departure = responder.record.departure or "client_gone"
        except asyncio.CancelledError:
            await self._fail(shutting_down(), scope, receive, send)
        except ProxyError as error:
            await self._fail(error, scope, receive, send)
        except Exception:
            await self._fail(InternalError(INTERNAL_ERROR), scope, receive, send)
            raise

    async def _send(self, speech: Speech, responder: Responder) -> None:
        while part := await speech.read():
            body = encode_speech_delta(part) if self._events else part
            if responder.status:
                responder.write(body, more=True)
            else:
                responder.start(200, self._headers(speech), body, more=True)
            await self._until_writable(responder, speech.attention)
        responder.write(encode_speech_done() if self._events else b"", more=False)

    def _headers(self, speech: Speech) -> RawHeaders:
        if self._events:
            return SSE_HEADERS + queue_headers(self._wait)
        kind = (b"content-type", speech.media_type.encode("latin-1"))
        return [kind, (b"x-content-type-options", b"nosniff"), *queue_headers(self._wait)]

    async def _until_writable(self, responder: Responder, attention: asyncio.Event) -> None:
        """Wait until the client has read what was written, and there is room. Raises ClientDisconnected."""
        waits = not responder.writable
        unsent = responder.unsent_bytes
        responder.on_writable(attention.set)
        while waits and not responder.disconnected:
            attention.clear()
            try:
                async with asyncio.timeout(self._write_timeout):
                    await attention.wait()
            except TimeoutError:
                if not responder.writable and responder.unsent_bytes > unsent - LEAST_READ:
                    responder.record.departure = "client_stalled"
                    responder.abort()
                    raise ClientDisconnected from None
                unsent = responder.unsent_bytes
            else:
                waits = not responder.writable
        if responder.disconnected:
            raise ClientDisconnected

    async def _fail(self, error: ProxyError, scope: Scope, receive: Receive, send: Send) -> None:
        responder = responder_of(scope)
        if not responder.status:
            await error_response(error)(scope, receive, send)
            return
        responder.record.fail(error)
        if self._events:
            responder.write(encode_error_frame(error), more=False)
        else:
            responder.abort()
