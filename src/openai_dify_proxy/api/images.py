"""``POST /v1/images/generations``, ``/edits`` and ``/variations``, through Replicate."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.client_watch import ClientWatch
from openai_dify_proxy.api.errors import FAULT, error_response, log_failure, shutting_down
from openai_dify_proxy.api.image_requests import ImageOperation, ParsedImageRequest, read_image_request
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.streaming import SSE_HEADERS, StreamTiming, WriteTimeout
from openai_dify_proxy.errors import ImagesOff, InternalError, IpfsPending, ProxyError, UpstreamMisconfigured
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.images.service import ImageService
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.chat_streams import COMMENT
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.translate.openai.image_answers import ShownPicture, encode_image_event, encode_images
from openai_dify_proxy.turns.client import ClientGone

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generator import GeneratedPicture, ImageGenerator, OnPartial, PreparedRequest

NOTICE_HEADER = "X-Unsupported-Parameters"
"""Names the parameters that were dropped, since the model does not take them."""

MAX_NOTICE_CHARACTERS = 1000

_T = TypeVar("_T")


async def generate_image(request: Request) -> Response:
    return await _respond(request, "generation")


async def edit_image(request: Request) -> Response:
    return await _respond(request, "edit")


async def vary_image(request: Request) -> Response:
    return await _respond(request, "variation")


async def _respond(request: Request, operation: ImageOperation) -> Response:
    services = services_of(request)
    service = services.images
    caller = services.authenticator.admit_spender(request)
    if service.generator is None:
        raise ImagesOff
    parsed = await read_image_request(request, services.bodies, caller, operation, limit=service.max_picture_bytes)
    if parsed.by == "ipfs" and service.uploads is None:
        raise UpstreamMisconfigured(
            "This server puts no pictures on IPFS. Its operator can set IPFS_UPLOAD_URL.", code="ipfs_not_configured"
        )
    with ExitStack() as stack:
        watch = stack.enter_context(ClientWatch(request.receive))
        answer = _ImageAnswer(service, service.generator, parsed, str(request.base_url))
        prepared = await while_connected(watch, service.generator.prepare(parsed.request))
        headers = {NOTICE_HEADER: _notice(prepared.plan.notices)} if prepared.plan.notices else {}
        if parsed.stream:
            stack.pop_all()  # the stream ends the watch
            kind = "image_generation" if operation == "generation" else "image_edit"
            return PictureStream(answer, prepared, watch, kind=kind, headers=headers, timing=services.timing)
        shown = await while_connected(watch, answer.pictures(prepared))
    if parsed.by != "ipfs" and _wants_bytes(request):
        first = shown[0]
        headers |= {"Content-Location": first.link, "X-Content-Type-Options": "nosniff"}
        return Response(first.data, 200, headers, first.media_type)
    return Response(encode_images(int(time()), shown, by=parsed.by), 200, headers, "application/json")


def _notice(names: Sequence[str]) -> str:
    """Names may hold any text of the client's: characters that no header can hold become question marks."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in ", ".join(names)[:MAX_NOTICE_CHARACTERS])


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
    """The pictures of one request, as its answer shows them."""

    service: ImageService
    generator: ImageGenerator
    parsed: ParsedImageRequest
    base_url: str

    async def pictures(self, prepared: PreparedRequest, on_partial: OnPartial | None = None) -> list[ShownPicture]:
        """Generate the pictures, and for ``return_ipfs`` wait until all are on IPFS. Raises ProxyError."""
        generated = await self.generator.generate(prepared, on_partial)
        uploads = self.service.uploads
        records = [picture.record for picture in generated]
        if uploads is not None:
            for record in records:
                uploads.notify(record)
            if self.parsed.by == "ipfs":
                records = await self._wait_for_ipfs(uploads, records)
        return [self.show(record, picture.data, picture) for record, picture in zip(records, generated, strict=True)]

    def show(self, record: PictureRecord, data: bytes, generated: GeneratedPicture | None = None) -> ShownPicture:
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
            seed=None if generated is None else generated.seed,
            prediction_id=None if generated is None else generated.prediction_id,
            revised_prompt=None if generated is None else generated.revised_prompt,
        )

    async def _wait_for_ipfs(self, uploads: IpfsUploads, records: list[PictureRecord]) -> list[PictureRecord]:
        """Wait for the uploads. If they take too long, they go on in the background; the pictures are stored anyway."""
        try:
            return list(await asyncio.gather(*(uploads.wait(record, self.service.ipfs_timeout) for record in records)))
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
        prepared: PreparedRequest,
        watch: ClientWatch,
        *,
        kind: str,
        headers: dict[str, str],
        timing: StreamTiming,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._answering = answering
        self._prepared = prepared
        self._watch = watch
        self._kind = kind
        self._timing = timing
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
        timing = self._timing
        idle = None if timing.kind == "off" else timing.interval
        wait: float | None = timing.grace
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
        by, wanted = answering.parsed.by, answering.parsed.partial_images
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
