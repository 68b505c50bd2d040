"""Streams pictures: comments as heartbeats, an event for each picture, and an error frame after a failure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from openai_dify_proxy.api.errors import INTERNAL_ERROR
from openai_dify_proxy.api.image_answer import ImageAnswer
from openai_dify_proxy.api.responder import Responder
from openai_dify_proxy.api.streaming import RawHeaders
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.translate.openai.image_answers import ShownPicture, encode_image_event
from openai_dify_proxy.turns.client import ClientDisconnected

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generated import Prepared

log = structlog.get_logger(__name__)


class _Shown(Struct, frozen=True):
    """A picture that waits to be sent. ``partial`` is its index if it is a partial one."""

    picture: ShownPicture
    partial: int | None = None


class PictureFrames:
    """The frames of generated pictures for ``client``, a ``FrameSource``. ``kind`` is the prefix of its event names.

    A frame is a third larger than its picture. Therefore each is encoded when the client has read the one before, and
    only while the bytes that wait for all slow clients are within their limit.
    """

    def __init__(
        self,
        answer: ImageAnswer,
        prepared: Prepared,
        client: Responder,
        *,
        kind: str,
        headers: dict[str, str],
    ) -> None:
        self.ended = False
        self.task_id: str | None = None
        self._answer = answer
        self._prepared = prepared
        self._client = client
        self._kind = kind
        self._headers = headers
        self._created = int(time())
        self._partials = 0
        self._loop = asyncio.get_running_loop()
        self._listener: Callable[[], None] | None = None
        self._queue: deque[_Shown | ProxyError | None] = deque()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Generate the pictures within the block; cancel that if the client disconnects."""
        work = self._loop.create_task(self.generate())

        def abandon() -> None:
            work.cancel()
            self._notify()  # the pictures may all be waiting for the client

        self._client.on_disconnect(abandon)
        try:
            yield
        finally:
            self._listener = None
            self._queue.clear()
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
        """Return the frame of the next picture."""
        if self._client.disconnected:
            raise ClientDisconnected
        if not self._queue:
            return b""
        shown = self._queue[0]
        if not isinstance(shown, _Shown):
            return None
        if not self._client.has_room:
            self._client.when_room(self._notify)
            return b""
        self._queue.popleft()
        if self._queue:
            self._loop.call_soon(self._notify)
        return encode_image_event(
            self._kind, self._created, shown.picture, by=self._answer.parsed.by, partial=shown.partial
        )

    async def settle(self) -> bytes:
        """Raise the error that ended the generation, or end the stream."""
        if isinstance(error := self._queue.popleft(), ProxyError):
            raise error
        self.ended = True
        return b""

    def pause(self) -> None:
        """Do nothing: the pictures are generated and stored in any case, and none is encoded until ``poll``."""

    def resume(self) -> None:
        """Do nothing, as ``pause``."""

    async def generate(self) -> None:
        """Generate the pictures and queue them, then an error after a failure, and None at the end."""
        on_partial = self._add_partial if self._answer.parsed.partial_images else None
        try:
            pictures = await self._answer.pictures(self._prepared, on_partial)
            self._client.record.pictures = len(pictures)
            for picture in pictures:
                self._add(_Shown(picture))
        except ProxyError as error:
            self._add(error)
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            self._add(InternalError(INTERNAL_ERROR))
        finally:
            self._add(None)

    async def _add_partial(self, data: bytes, record: PictureRecord) -> None:
        if self._partials < self._answer.parsed.partial_images:
            self._add(_Shown(self._answer.show(record, data), self._partials))
            self._partials += 1

    def _add(self, item: _Shown | ProxyError | None) -> None:
        self._queue.append(item)
        self._notify()

    def _notify(self) -> None:
        if self._listener is not None:
            self._listener()
