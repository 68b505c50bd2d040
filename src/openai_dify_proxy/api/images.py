"""``POST /v1/images/generations``, ``/edits`` and ``/variations``, with models on Replicate and Dify apps."""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from openai_dify_proxy.api.image_answer import ImageAnswer, while_connected
from openai_dify_proxy.api.image_requests import ImageOperation, read_image_request
from openai_dify_proxy.api.image_streams import PictureFrames
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.notices import NOTICE_HEADER, notice
from openai_dify_proxy.api.responder import record_of, responder_of
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.streaming import EventStream
from openai_dify_proxy.errors import ImagesOff, UpstreamMisconfigured
from openai_dify_proxy.translate.openai.image_answers import encode_images


async def generate_image(request: Request) -> ASGIApp:
    return await _respond(request, "generation")


async def edit_image(request: Request) -> ASGIApp:
    return await _respond(request, "edit")


async def vary_image(request: Request) -> ASGIApp:
    return await _respond(request, "variation")


async def _respond(request: Request, operation: ImageOperation) -> ASGIApp:
    services = services_of(request)
    service = services.images
    caller = services.authenticator.admit_spender(request)
    if not service.available:
        raise ImagesOff
    parsed = await read_image_request(request, services.bodies, caller, operation, limit=service.max_picture_bytes)
    record = record_of(request.scope)
    record.model = model = service.model_of(parsed.request.model)
    if parsed.by == "ipfs" and service.uploads is None:
        raise UpstreamMisconfigured(
            "This server does not upload pictures to IPFS. Its operator can set IPFS_UPLOAD_URL.",
            code="ipfs_not_configured",
        )
    generator = service.generator_of(model)
    if generator is None:
        raise ImagesOff
    await enforce_limits(responder_of(request.scope), services, caller)
    answer = ImageAnswer(service, generator, parsed, str(request.base_url), services.turns.ledger)
    client = responder_of(request.scope)
    prepared = await while_connected(client, answer.generator.prepare(parsed.request))
    if parsed.stream:
        kind = "image_generation" if operation == "generation" else "image_edit"
        frames = PictureFrames(answer, prepared, client, kind=kind, headers=_headers(prepared.notices))
        return EventStream(frames, frames.opened(), services.timing)
    shown = await while_connected(client, answer.pictures(prepared))
    record.pictures = len(shown)
    headers = _headers(prepared.notices) | {"Vary": "Accept"}
    if parsed.request.parameters.accepted is not None:
        first = shown[0]
        headers |= {"Content-Location": first.link, "X-Content-Type-Options": "nosniff"}
        return Response(first.data, 200, headers, first.media_type)
    return Response(encode_images(int(time()), shown, by=parsed.by), 200, headers, "application/json")


def _headers(dropped: Sequence[str]) -> dict[str, str]:
    return {NOTICE_HEADER: notice(dropped)} if dropped else {}
