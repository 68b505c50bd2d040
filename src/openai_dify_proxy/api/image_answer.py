"""The pictures of one image request, in the form of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from openai_dify_proxy.api.errors import shutting_down
from openai_dify_proxy.api.image_requests import ParsedImageRequest
from openai_dify_proxy.errors import IpfsPending, ProxyError
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.images.service import ImageService
from openai_dify_proxy.limits.accounts import Work
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.translate.openai.image_answers import ShownPicture
from openai_dify_proxy.turns.booking import book
from openai_dify_proxy.turns.client import Client, ClientDisconnected

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generated import GeneratedPicture, OnPartial, PictureGenerator, Prepared

_T = TypeVar("_T")


class ImageAnswer(Struct, frozen=True):
    """Generates the pictures of one request and describes them for its answer."""

    service: ImageService
    generator: PictureGenerator[Any]
    parsed: ParsedImageRequest
    base_url: str
    ledger: Ledger

    async def pictures(self, prepared: Prepared, on_partial: OnPartial | None = None) -> list[ShownPicture]:
        """Generate the pictures; with ``return_ipfs``, wait until all are on IPFS. Raises ProxyError."""
        generated = await self._generate(prepared, on_partial)
        uploads = self.service.uploads
        records = [picture.record for picture in generated]
        if uploads is not None:
            for record in records:
                uploads.notify(record)
            if self.parsed.by == "ipfs":
                records = await self._wait_for_ipfs(uploads, records)
        return [self.show(record, picture.data, picture) for record, picture in zip(records, generated, strict=True)]

    async def _generate(self, prepared: Prepared, on_partial: OnPartial | None) -> list[GeneratedPicture]:
        """Generate the pictures, and book them: a request to Replicate is a turn, and apps book their own turns."""
        outcome, pictures = "turn_failed", 0
        try:
            generated = await self.generator.generate(prepared, on_partial)
            outcome, pictures = "ok", len(generated)
        except asyncio.CancelledError:
            outcome = "client_gone"
            raise
        finally:
            turns = 0 if self.generator is self.service.app_generator else 1
            work = Work(prepared.account, outcome, pictures=pictures, turns=turns)
            if (booking := book(self.ledger, self.parsed.request.caller, work)) is not None:
                await booking
        return generated

    def show(self, record: PictureRecord, data: bytes, generated: GeneratedPicture | None = None) -> ShownPicture:
        """Describe a stored picture. ``generated`` is None for a partial picture."""
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
        """Wait for the uploads, and return the new records. Raises IpfsPending; the uploads continue then."""
        try:
            return list(await asyncio.gather(*(uploads.wait(record, self.service.ipfs_timeout) for record in records)))
        except ProxyError as error:
            links = ", ".join(self.service.pictures.link(record, self.base_url) for record in records)
            raise IpfsPending(
                "The pictures are stored, but not on IPFS yet. The upload continues in the background; until then, "
                f"find them at {links}",
                started=True,
                log=error.log or error.message,
            ) from error


async def while_connected(client: Client, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of ``work``. If the client disconnects, cancel it and raise ClientDisconnected."""
    task = asyncio.get_running_loop().create_task(work)
    client.on_disconnect(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if client.disconnected:
            raise ClientDisconnected from None
        raise shutting_down() from None
