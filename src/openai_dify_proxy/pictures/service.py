"""Checks, strips, names and keeps pictures, and says where they can be had."""

from __future__ import annotations

import hashlib

from msgspec import Struct

from openai_dify_proxy.errors import BadPicture
from openai_dify_proxy.pictures.decoding import Dimensions, decode_all, identify, in_thread
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.pictures.formats import strip_text
from openai_dify_proxy.translate.pictures.ipfs_cid import compute_cid


class StoredPicture(Struct, frozen=True):
    """A picture that is kept, and its bytes as they are kept."""

    record: PictureRecord
    data: bytes


class Pictures:
    """``limit`` is the largest picture in bytes, ``ipfs`` whether pictures go to IPFS.

    ``gateway`` is a template with ``{cid}``: links go there for pictures that have been sent.
    """

    def __init__(
        self,
        store: PictureStore,
        *,
        limit: int,
        ipfs: bool = False,
        public_url: str | None = None,
        gateway: str | None = None,
    ) -> None:
        self.store = store
        self._limit = limit
        self._ipfs = ipfs
        self._public_url = public_url
        self._gateway = gateway

    async def keep(self, data: bytes, facts: PictureFacts) -> StoredPicture:
        """Raises BadPicture for what is no picture or carries too much, PictureNotKept when it cannot be stored."""
        if len(data) > self._limit:
            raise BadPicture(f"The picture is too large: more than {self._limit} bytes.", started=True)
        found = identify(data)
        data, dimensions, digest, cid = await in_thread(_prove, data)
        record = PictureRecord(
            sha256=digest,
            extension=found.extension,
            media_type=found.media_type,
            size=len(data),
            width=dimensions.width,
            height=dimensions.height,
            created=facts.created,
            model=facts.model,
            prediction_id=facts.prediction_id,
            seed=facts.seed,
            prompt=facts.prompt,
            cid=cid,
            ipfs="pending" if self._ipfs else "off",
        )
        return StoredPicture(await self.store.put(data, record), data)

    def link(self, record: PictureRecord, base_url: str) -> str:
        """Where clients find the picture; ``base_url`` is the address under which they asked."""
        if self._gateway is not None and record.ipfs == "sent" and record.cid is not None:
            return self._gateway.replace("{cid}", record.cid)
        return f"{(self._public_url or base_url).rstrip('/')}/pictures/{record.name}"

    async def close(self) -> None:
        await self.store.close()


def open_pictures(settings: Settings) -> Pictures:
    """The pictures that the settings describe. Raises SettingsError for a place that cannot be used."""
    return Pictures(
        open_picture_store(settings),
        limit=settings.max_picture_bytes,
        ipfs=settings.ipfs_upload_url is not None,
        public_url=settings.public_url,
        gateway=settings.ipfs_gateway_url if settings.picture_links == "ipfs" else None,
    )


def open_picture_store(settings: Settings) -> PictureStore:
    if settings.picture_store is None:
        return LocalPictures(settings.image_storage_dir)
    from openai_dify_proxy.pictures.objects import open_object_store  # noqa: PLC0415 - its library is an extra

    return open_object_store(settings.picture_store.get_secret_value())


def _prove(data: bytes) -> tuple[bytes, Dimensions, str, str]:
    """What is decoded is what is kept: the stripped bytes."""
    data = strip_text(data)
    return data, decode_all(data), hashlib.sha256(data).hexdigest(), compute_cid(data)
