"""``POST /v1/images/generations``, ``/edits`` and ``/variations``, made by Replicate."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from time import time
from typing import Any, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.client_watch import ClientWatch
from openai_dify_proxy.api.errors import FAULT, error_response, log_failure, shutting_down
from openai_dify_proxy.api.image_requests import ImageOperation, ParsedImageRequest, read_image_order
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.streaming import SSE_HEADERS, StreamTiming, WriteTimeout
from openai_dify_proxy.errors import ImagesOff, InternalError, IpfsPending, ProxyError, UpstreamMisconfigured
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.images.service import Images, MadePicture, Partial, PreparedOrder
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.service import Pictures
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.translate.openai.image_answers import ShownPicture, encode_image_event, encode_images
from openai_dify_proxy.turns.client import ClientGone
from openai_dify_proxy.upstream.client_urls import ClientUrls

NOTICE_HEADER = "X-Unsupported-Parameters"
"""Names what was asked for and dropped, since the model has no place for it."""
LONGEST_NOTICE = 1000

_T = TypeVar("_T")


class ImageService(Struct, frozen=True):
    """What the image routes share. Without a Replicate token there are pictures, but nobody who makes new ones."""

    pictures: Pictures
    uploads: IpfsUploads | None
    images: Images | None
    client_urls: ClientUrls
    max_picture_bytes: int
    ipfs_timeout: float
    timing: StreamTiming


async def generate_image(request: Request) -> Response:
    return await _answer(request, "generation")


async def edit_image(request: Request) -> Response:
    return await _answer(request, "edit")


async def vary_image(request: Request) -> Response:
    return await _answer(request, "variation")


async def _answer(request: Request, task: ImageOperation) -> Response:
    services = services_of(request)
    service: ImageService = request.app.state.images
    caller = services.authenticator.admit_spender(request)
    if service.images is None:
        raise ImagesOff
    asked = await read_image_order(
        request, services.bodies, caller, task, urls=service.client_urls, limit=service.max_picture_bytes
    )
    if asked.by == "ipfs" and service.uploads is None:
        raise UpstreamMisconfigured(
            "This server puts no pictures on IPFS. Its operator can set IPFS_UPLOAD_URL.", code="ipfs_not_configured"
        )
    watch = ClientWatch(request.receive).__enter__()
    answering = _ImageAnswer(service, service.images, asked, str(request.base_url))
    try:
        prepared = await while_connected(watch, service.images.prepare(asked.order))
        headers = {NOTICE_HEADER: _notice(prepared.plan.notices)} if prepared.plan.notices else {}
        if asked.stream:
            kind = "image_generation" if task == "generation" else "image_edit"
            return PictureStream(answering, prepared, watch, kind=kind, headers=headers)
        shown = await while_connected(watch, answering.pictures(prepared))
    except BaseException:
        watch.__exit__()
        raise
    watch.__exit__()
    if asked.by != "ipfs" and _wants_bytes(request):
        first = shown[0]
        headers |= {"Content-Location": first.link, "X-Content-Type-Options": "nosniff"}
        return Response(first.data, 200, headers, first.media_type)
    return Response(encode_images(int(time()), shown, by=asked.by), 200, headers, "application/json")


def _notice(names: Sequence[str]) -> str:
    """Names may be any text of the client's, which a header cannot hold."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in ", ".join(names)[:LONGEST_NOTICE])


async def while_connected(watch: ClientWatch, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client goes away. Raises ClientGone then."""
    task = asyncio.get_running_loop().create_task(work)
    watch.on_leave(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGone from None
        raise shutting_down() from None


def _wants_bytes(request: Request) -> bool:
    """``Accept: image/*`` (or a type of image) asks for the first picture itself."""
    accepted = request.headers.get("accept", "")
    return any(part.strip().startswith("image/") for part in accepted.split(","))


class _ImageAnswer(Struct, frozen=True):
    """What is made for one request, as its answer shows it."""

    service: ImageService
    images: Images
    asked: ParsedImageRequest
    base_url: str

    async def pictures(self, prepared: PreparedOrder, partial: Partial | None = None) -> list[ShownPicture]:
        """Makes them, and for ``return_ipfs`` waits until all are there. Raises ProxyError."""
        made = await self.images.make(prepared, partial)
        uploads = self.service.uploads
        records = [picture.record for picture in made]
        if uploads is not None:
            for record in records:
                uploads.notify(record)
            if self.asked.by == "ipfs":
                records = await self._sent(uploads, records)
        return [self.show(record, picture.data, picture) for record, picture in zip(records, made, strict=True)]

    def show(self, record: PictureRecord, data: bytes, made: MadePicture | None = None) -> ShownPicture:
        on_ipfs = record.ipfs != "off"
        return ShownPicture(
            data=data,
            format=record.extension,
            media_type=record.media_type,
            width=record.width,
            height=record.height,
            link=self.service.pictures.link(record, self.base_url),
            cid=record.cid if on_ipfs else None,
            ipfs=record.ipfs if on_ipfs else None,
            seed=None if made is None else made.seed,
            prediction_id=None if made is None else made.prediction_id,
            revised_prompt=None if made is None else made.revised_prompt,
        )

    async def _sent(self, uploads: IpfsUploads, records: list[PictureRecord]) -> list[PictureRecord]:
        """Waits for the uploads, which go on behind if they take too long; the pictures are kept in any case."""
        try:
            return list(await asyncio.gather(*(uploads.sent(record, self.service.ipfs_timeout) for record in records)))
        except ProxyError as error:
            links = ", ".join(self.service.pictures.link(record, self.base_url) for record in records)
            raise IpfsPending(
                "What was asked for is made and kept, but not on IPFS yet; it is sent there as soon as that can be "
                f"reached. Until then it is at {links}",
                started=True,
                log=error.log or error.message,
            ) from error


class PictureStream(Response):
    """A streamed answer: comments while the model works, an event for each picture, an error frame if it fails."""

    def __init__(
        self,
        answering: _ImageAnswer,
        prepared: PreparedOrder,
        watch: ClientWatch,
        *,
        kind: str,
        headers: dict[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self._answering = answering
        self._prepared = prepared
        self._watch = watch
        self._kind = kind
        self._extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._committed = False
        self._stall = WriteTimeout()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames: asyncio.Queue[bytes | ProxyError | None] = asyncio.Queue()
        work = asyncio.create_task(self._make(frames))
        self._watch.on_leave(work.cancel)
        try:
            await self._pump(frames, scope, receive, send)
        except asyncio.CancelledError:
            if self._stall.expired:
                raise
            await self._fail(shutting_down(), scope, receive, send)
        finally:
            self._stall.stop()
            self._watch.__exit__()
            work.cancel()

    async def _pump(
        self, frames: asyncio.Queue[bytes | ProxyError | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        pulse = self._answering.service.timing
        idle = None if pulse.kind == "off" else pulse.interval
        wait: float | None = pulse.grace
        while (frame := await _next(frames, wait)) is not None:
            if isinstance(frame, ProxyError):
                await self._fail(frame, scope, receive, send)
                return
            await self._send(frame, send)
            wait = idle
        await self._send(b"", send, more=False)

    async def _send(self, body: bytes, send: Send, *, more: bool = True) -> None:
        self._stall.begin()
        if not self._committed:
            self._committed = True
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + self._extra})
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self._stall.end()

    async def _fail(self, error: ProxyError, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._committed:
            await error_response(error)(scope, receive, send)
            return
        await self._send(b"event: error\ndata: %s\n\n" % encode_error(error), send, more=False)

    async def _make(self, frames: asyncio.Queue[bytes | ProxyError | None]) -> None:
        """Puts a frame for each picture into ``frames``, an error if it fails, and None at the end."""
        answering = self._answering
        created = int(time())
        by, wanted = answering.asked.by, answering.asked.partial_images
        shown = 0

        async def partial(data: bytes, record: PictureRecord) -> None:
            nonlocal shown
            if shown < wanted:
                picture = answering.show(record, data)
                frames.put_nowait(encode_image_event(self._kind, created, picture, by=by, partial=shown))
                shown += 1

        try:
            for picture in await answering.pictures(self._prepared, partial if wanted else None):
                frames.put_nowait(encode_image_event(self._kind, created, picture, by=by))
        except ProxyError as error:
            log_failure(error)
            frames.put_nowait(error)
        except Exception:
            frames.put_nowait(InternalError(FAULT))
            raise
        finally:
            frames.put_nowait(None)


async def _next(frames: asyncio.Queue[_T], seconds: float | None) -> _T | bytes:
    """The next frame, or a comment if none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await frames.get()
    except TimeoutError:
        return COMMENT
