"""Verifies pictures, removes their metadata, and stores them."""

from __future__ import annotations

import hashlib

from msgspec import Struct

from openai_dify_proxy.errors import BadPicture
from openai_dify_proxy.pictures.decoding import Dimensions, decode_all, identify, in_thread
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.translate.pictures.formats import strip_text
from openai_dify_proxy.translate.pictures.ipfs_cid import compute_cid


class StoredPicture(Struct, frozen=True):
    """A stored picture and its bytes as stored."""

    record: PictureRecord
    data: bytes


class PictureWriter:
    """Writes pictures of at most ``limit`` bytes; with ``ipfs``, as pending for the upload."""

    def __init__(self, store: PictureStore, *, limit: int, ipfs: bool = False) -> None:
        self._store = store
        self._limit = limit
        self._ipfs = ipfs

    async def store(self, data: bytes, facts: PictureFacts) -> StoredPicture:
        """Verify and store a picture. Raises BadPicture, and PictureNotStored if the store fails."""
        if len(data) > self._limit:
            raise BadPicture(
                f"The picture of the model is too large: {len(data)} bytes. The limit is {self._limit} bytes.",
                started=True,
            )
        found = identify(data)
        data, dimensions, digest, cid = await in_thread(_verify, data)
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
        return StoredPicture(await self._store.put(data, record), data)


def _verify(data: bytes) -> tuple[bytes, Dimensions, str, str]:
    """Remove the metadata, then decode: exactly the stored bytes are decoded."""
    data = strip_text(data)
    return data, decode_all(data), hashlib.sha256(data).hexdigest(), compute_cid(data)
