"""``/v1/stored_pictures``: the stored pictures with their records, for operators."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import InvalidRequest, NotFound
from openai_dify_proxy.images.service import ImageService
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.conversation_items import whole_number
from openai_dify_proxy.wire.openai.pictures import PictureDeleted, PictureList, PictureObject

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


async def list_stored_pictures(request: Request) -> Response:
    """Return the newest pictures, at most ``limit``."""
    services = services_of(request)
    services.authenticator.admit_admin(request)
    limit = _limit(request.query_params.get("limit"))
    records = await newest(services.images.pictures.store.records(), limit + 1)
    base_url = str(request.base_url)
    shown = [_shown(services.images, record, base_url) for record in records[:limit]]
    return json_response(PictureList(data=shown, has_more=len(records) > limit))


async def delete_stored_picture(request: Request) -> Response:
    """Delete a picture. What is on IPFS stays there."""
    services = services_of(request)
    services.authenticator.admit_admin(request)
    name = request.path_params["name"]
    if not await services.images.pictures.store.delete(name):
        raise _missing()
    return json_response(PictureDeleted(id=name))


async def upload_stored_picture(request: Request) -> Response:
    """Send a picture to IPFS in the background, for the first time or after a failure."""
    services = services_of(request)
    services.authenticator.admit_admin(request)
    images = services.images
    if images.uploads is None:
        raise InvalidRequest("The server has no IPFS node. Set IPFS_UPLOAD_URL.", code="ipfs_not_configured")
    record = await images.pictures.store.update(request.path_params["name"], _pending)
    if record is None:
        raise _missing()
    images.uploads.notify(record)
    return json_response(_shown(images, record, str(request.base_url)))


async def newest(records: AsyncIterator[PictureRecord], count: int) -> list[PictureRecord]:
    """Return the ``count`` newest of the records, newest first. At most twice as many are held in memory."""
    found: list[PictureRecord] = []
    async for record in records:
        found.append(record)
        if len(found) >= 2 * count:
            found = _newest(found, count)
    return _newest(found, count)


def _newest(records: list[PictureRecord], count: int) -> list[PictureRecord]:
    return heapq.nlargest(count, records, key=lambda record: (record.created, record.name))


def _pending(record: PictureRecord) -> PictureRecord:
    return record if record.ipfs == "sent" else msgspec.structs.replace(record, ipfs="pending")


def _shown(images: ImageService, record: PictureRecord, base_url: str) -> PictureObject:
    fields = asdict(record)
    del fields["sha256"], fields["extension"]
    return PictureObject(
        **fields,
        name=record.name,
        url=images.pictures.link(record, base_url),
        gateway=images.pictures.gateway_link(record),
        can_upload=images.uploads is not None,
    )


def _limit(text: str | None) -> int:
    limit = DEFAULT_LIMIT if text is None else whole_number(text)
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"'limit' must be a whole number from 1 to {MAX_LIMIT}.", param="limit")
    return limit


def _missing() -> NotFound:
    return NotFound("The picture does not exist, or has been removed.", param="name")
