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

from openai_dify_proxy.api.image_requests import Asked, Task, read_image_order
from openai_dify_proxy.api.proxy import proxy_of
from openai_dify_proxy.api.responses import (
    FAULT,
    SSE_HEADERS,
    ClientWatch,
    Pulse,
    error_response,
    log_failure,
    shutting_down,
)
from openai_dify_proxy.errors import ImagesOff, InternalError, IpfsPending, ProxyError, UpstreamMisconfigured
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.service import Pictures
from openai_dify_proxy.predictions.ipfs_uploads import IpfsUploads
from openai_dify_proxy.predictions.service import Images, Made, Prepared
from openai_dify_proxy.translate.image_answers import ShownPicture, encode_image_event, encode_images
from openai_dify_proxy.translate.openai_errors import encode_error
from openai_dify_proxy.translate.openai_streams import COMMENT
from openai_dify_proxy.turns.turn import ClientGone

NOTICE_HEADER = "X-Unsupported-Parameters"
"""Names what was asked for and dropped, since the model has no place for it."""
LONGEST_NOTICE = 1000

_T = TypeVar("_T")


class ImageService(Struct, frozen=True):
    """What the image routes share. Without a Replicate token there are pictures, but nobody who makes new ones."""

    pictures: Pictures
    uploads: IpfsUploads | None
    images: Images | None
    max_picture_bytes: int
    ipfs_timeout: float
    pulse: Pulse


async def generate_image(request: Request) -> Response:
    return await _answer(request, "generation")


async def edit_image(request: Request) -> Response:
    return await _answer(request, "edit")


async def vary_image(request: Request) -> Response:
    return await _answer(request, "variation")


async def _answer(request: Request, task: Task) -> Response:
    proxy = proxy_of(request)
    service: ImageService = request.app.state.images
    caller = proxy.gate.admit_spender(request)
    if service.images is None:
        raise ImagesOff
    asked = await read_image_order(request, proxy.gate, caller, task, service.max_picture_bytes)
    if asked.by == "ipfs" and service.uploads is None:
        raise UpstreamMisconfigured(
            "This server puts no pictures on IPFS. Its operator can set IPFS_UPLOAD_URL.", code="ipfs_not_configured"
        )
    prepared = await service.images.prepare(asked.order)
    base_url = str(request.base_url)
    headers = {NOTICE_HEADER: _notice(prepared.plan.notices)} if prepared.plan.notices else {}
    kind = "image_generation" if task == "generation" else "image_edit"
    if asked.stream:
        return _PictureStream(service, service.images, prepared, asked, kind=kind, base_url=base_url, headers=headers)
    made = await while_connected(request, service.images.make(prepared))
    shown = [await _show(service, picture, asked, base_url) for picture in made]
    if asked.by != "ipfs" and _wants_bytes(request):
        first = made[0]
        headers |= {"Content-Location": shown[0].link}
        return Response(first.data, 200, headers, first.record.media_type)
    return Response(encode_images(int(time()), shown, by=asked.by), 200, headers, "application/json")


def _notice(names: Sequence[str]) -> str:
    """Names may be any text of the client's, which a header cannot hold."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in ", ".join(names)[:LONGEST_NOTICE])


async def while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client goes away. Raises ClientGone then."""
    task = asyncio.get_running_loop().create_task(work)
    watch = ClientWatch(request.receive)
    watch.then(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGone from None
        task.cancel()
        raise shutting_down() from None
    finally:
        watch.stop()


def _wants_bytes(request: Request) -> bool:
    """``Accept: image/*`` (or a type of image) asks for the first picture itself."""
    accepted = request.headers.get("accept", "")
    return any(part.strip().startswith("image/") for part in accepted.split(","))


async def _show(service: ImageService, made: Made, asked: Asked, base_url: str) -> ShownPicture:
    record = made.record
    if service.uploads is not None:
        service.uploads.notify(record)
        if asked.by == "ipfs":
            record = await _on_ipfs(service, service.uploads, record, base_url)
    shown = _shown(service, record, made.data, base_url)
    return ShownPicture(
        data=shown.data,
        format=shown.format,
        width=shown.width,
        height=shown.height,
        link=shown.link,
        cid=shown.cid,
        ipfs=shown.ipfs,
        seed=made.seed,
        prediction_id=made.prediction_id,
        revised_prompt=made.revised_prompt,
    )


def _shown(service: ImageService, record: PictureRecord, data: bytes, base_url: str) -> ShownPicture:
    on_ipfs = record.ipfs != "off"
    return ShownPicture(
        data=data,
        format=record.extension,
        width=record.width,
        height=record.height,
        link=service.pictures.link(record, base_url),
        cid=record.cid if on_ipfs else None,
        ipfs=record.ipfs if on_ipfs else None,
    )


async def _on_ipfs(service: ImageService, uploads: IpfsUploads, record: PictureRecord, base_url: str) -> PictureRecord:
    """Waits for the upload, which goes on behind if it takes too long; the picture is kept in any case."""
    try:
        return await uploads.sent(record, service.ipfs_timeout)
    except ProxyError as error:
        raise IpfsPending(
            "The picture is made and kept, but not on IPFS yet; it is sent there as soon as that can be reached. "
            f"Until then it is at {service.pictures.link(record, base_url)}",
            started=True,
            log=error.log or error.message,
        ) from error


class _PictureStream(Response):
    """A streamed answer: comments while the model works, an event for each picture, an error frame if it fails."""

    def __init__(
        self,
        service: ImageService,
        images: Images,
        prepared: Prepared,
        asked: Asked,
        *,
        kind: str,
        base_url: str,
        headers: dict[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self._service = service
        self._images = images
        self._prepared = prepared
        self._asked = asked
        self._kind = kind
        self._base_url = base_url
        self._extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames: asyncio.Queue[bytes | ProxyError | None] = asyncio.Queue()
        work = asyncio.create_task(self._make(frames))
        watch = ClientWatch(receive)
        watch.then(work.cancel)
        try:
            first = await _next(frames, self._service.pulse.grace)
            if isinstance(first, ProxyError):
                await error_response(first)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + self._extra})
            frame: bytes | ProxyError | None = first
            while frame is not None:
                body = b"event: error\ndata: %s\n\n" % encode_error(frame) if isinstance(frame, ProxyError) else frame
                await send({"type": "http.response.body", "body": body, "more_body": True})
                frame = await _next(frames, self._service.pulse.interval)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watch.stop()
            work.cancel()

    async def _make(self, frames: asyncio.Queue[bytes | ProxyError | None]) -> None:
        created = int(time())
        by = self._asked.by

        async def partial(data: bytes, record: PictureRecord, index: int) -> None:
            if index < self._asked.partial_images:
                shown = _shown(self._service, record, data, self._base_url)
                frames.put_nowait(encode_image_event(self._kind, created, shown, by=by, partial=index))

        try:
            wanted = partial if self._asked.partial_images else None
            for made in await self._images.make(self._prepared, wanted):
                shown = await _show(self._service, made, self._asked, self._base_url)
                frames.put_nowait(encode_image_event(self._kind, created, shown, by=by))
        except ProxyError as error:
            log_failure(error)
            frames.put_nowait(error)
        except asyncio.CancelledError:
            frames.put_nowait(shutting_down())
            raise
        except Exception:
            frames.put_nowait(InternalError(FAULT))
            raise
        finally:
            frames.put_nowait(None)


async def _next(frames: asyncio.Queue[_T], seconds: float) -> _T | bytes:
    """The next frame, or a comment if none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await frames.get()
    except TimeoutError:
        return COMMENT
