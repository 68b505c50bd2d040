"""Streams pictures: comments as heartbeats, an event for each picture, and an error frame after a failure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING

import structlog

from openai_dify_proxy.api.errors import INTERNAL_ERROR, log_failure
from openai_dify_proxy.api.image_answer import ImageAnswer
from openai_dify_proxy.api.responder import Responder
from openai_dify_proxy.api.streaming import RawHeaders
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.translate.openai.image_answers import encode_image_event
from openai_dify_proxy.turns.client import ClientDisconnected

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generator import PreparedRequest

log = structlog.get_logger(__name__)


class PictureFrames:
    """The frames of generated pictures, a ``FrameSource``. ``kind`` is the prefix of its event names."""

    def __init__(self, answer: ImageAnswer, prepared: PreparedRequest, *, kind: str, headers: dict[str, str]) -> None:
        self.ended = False
        self.task_id: str | None = None
        self._answer = answer
        self._prepared = prepared
        self._kind = kind
        self._headers = headers
        self._created = int(time())
        self._partials = 0
        self._client: Responder | None = None
        self._listener: Callable[[], None] | None = None
        self._frames: deque[bytes | ProxyError | None] = deque()

    @asynccontextmanager
    async def opened(self, client: Responder) -> AsyncIterator[None]:
        """Generate the pictures within the block; cancel that if ``client`` disconnects."""
        self._client = client
        work = asyncio.create_task(self.generate())
        client.on_disconnect(work.cancel)
        try:
            yield
        finally:
            self._listener = None
            work.cancel()

    def headers(self) -> RawHeaders:
        return [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]

    def opening(self) -> bytes:
        return COMMENT

    def heartbeat(self) -> bytes:
        return COMMENT

    def failure(self, error: ProxyError) -> bytes:
        return b"event: error\ndata: %s\n\n" % encode_error(error)

    def listen(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def poll(self) -> bytes | None:
        if self._client is not None and self._client.disconnected:
            raise ClientDisconnected
        if self._frames and not isinstance(self._frames[-1], bytes):
            return None
        return self._take()

    async def settle(self) -> bytes:
        """Return the last pictures' frames, then raise the error or end the stream."""
        if frames := self._take():
            return frames
        if isinstance(error := self._frames.popleft(), ProxyError):
            raise error
        self.ended = True
        return b""

    def _take(self) -> bytes:
        """Remove and return the queued frames."""
        frames = []
        while self._frames and isinstance(frame := self._frames[0], bytes):
            frames.append(frame)
            self._frames.popleft()
        return b"".join(frames)

    def pause(self) -> None:
        """Do nothing: the request limits the number of pictures, and they are generated and stored in any case."""

    def resume(self) -> None:
        """Do nothing, as ``pause``."""

    async def generate(self) -> None:
        """Generate the pictures and queue a frame for each, an error after a failure, and None at the end."""
        parsed = self._answer.parsed
        on_partial = self._queue_partial if parsed.partial_images else None
        try:
            for picture in await self._answer.pictures(self._prepared, on_partial):
                self._queue(encode_image_event(self._kind, self._created, picture, by=parsed.by))
        except ProxyError as error:
            log_failure(error)
            self._queue(error)
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            self._queue(InternalError(INTERNAL_ERROR))
        finally:
            self._queue(None)

    def _queue(self, frame: bytes | ProxyError | None) -> None:
        self._frames.append(frame)
        if self._listener is not None:
            self._listener()

    async def _queue_partial(self, data: bytes, record: PictureRecord) -> None:
        parsed = self._answer.parsed
        if self._partials < parsed.partial_images:
            picture = self._answer.show(record, data)
            self._queue(encode_image_event(self._kind, self._created, picture, by=parsed.by, partial=self._partials))
            self._partials += 1
