"""Streams pictures: comments as heartbeats, an event for each picture, and an error frame after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING

import structlog
from starlette.types import Scope

from openai_dify_proxy.api.client_watch import ClientWatch
from openai_dify_proxy.api.errors import INTERNAL_ERROR, log_failure
from openai_dify_proxy.api.image_answer import ImageAnswer, while_connected
from openai_dify_proxy.api.streaming import RawHeaders
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.translate.openai.image_answers import encode_image_event

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generator import PreparedRequest

log = structlog.get_logger(__name__)


@asynccontextmanager
async def picture_frames(
    scope: Scope, answer: ImageAnswer, *, kind: str, headers_of: Callable[[Sequence[str]], dict[str, str]]
) -> AsyncIterator[PictureFrames]:
    """Yield the frames of an answer. ``kind`` is the prefix of its event names.

    ``headers_of`` returns the headers for the names of dropped parameters. Raises ProxyError before anything is
    billed.
    """
    with ClientWatch(scope) as client:
        prepared = await while_connected(client, answer.generator.prepare(answer.parsed.request))
        frames = PictureFrames(answer, prepared, kind, headers_of(prepared.plan.notices))
        work = asyncio.create_task(frames.generate())
        client.on_disconnect(work.cancel)
        try:
            yield frames
        finally:
            work.cancel()


class PictureFrames:
    """The frames of generated pictures, a ``FrameSource``."""

    def __init__(self, answer: ImageAnswer, prepared: PreparedRequest, kind: str, headers: dict[str, str]) -> None:
        self.ended = False
        self.task_id: str | None = None
        self._answer = answer
        self._prepared = prepared
        self._kind = kind
        self._headers = headers
        self._created = int(time())
        self._partials = 0
        self._frames: asyncio.Queue[bytes | ProxyError | None] = asyncio.Queue()

    async def next(self, wake_at: float | None) -> bytes | None:
        try:
            async with asyncio.timeout_at(wake_at):
                frame = await self._frames.get()
        except TimeoutError:
            return None
        if isinstance(frame, ProxyError):
            raise frame
        self.ended = frame is None
        return frame or b""

    def headers(self) -> RawHeaders:
        return [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]

    def opening(self) -> bytes:
        return COMMENT

    def heartbeat(self) -> bytes:
        return COMMENT

    def failure(self, error: ProxyError) -> bytes:
        return b"event: error\ndata: %s\n\n" % encode_error(error)

    async def generate(self) -> None:
        """Generate the pictures and queue a frame for each, an error after a failure, and None at the end."""
        parsed = self._answer.parsed
        on_partial = self._queue_partial if parsed.partial_images else None
        try:
            for picture in await self._answer.pictures(self._prepared, on_partial):
                self._frames.put_nowait(encode_image_event(self._kind, self._created, picture, by=parsed.by))
        except ProxyError as error:
            log_failure(error)
            self._frames.put_nowait(error)
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            self._frames.put_nowait(InternalError(INTERNAL_ERROR))
        finally:
            self._frames.put_nowait(None)

    async def _queue_partial(self, data: bytes, record: PictureRecord) -> None:
        parsed = self._answer.parsed
        if self._partials < parsed.partial_images:
            picture = self._answer.show(record, data)
            self._frames.put_nowait(
                encode_image_event(self._kind, self._created, picture, by=parsed.by, partial=self._partials)
            )
            self._partials += 1
