"""Verifies pictures, strips their texts, and stores them."""

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
    """``limit`` is the largest picture in bytes; with ``ipfs``, pictures are stored as pending for IPFS."""

    def __init__(self, store: PictureStore, *, limit: int, ipfs: bool = False) -> None:
        self._store = store
        self._limit = limit
        self._ipfs = ipfs

    async def store(self, data: bytes, facts: PictureFacts) -> StoredPicture:
        """Raises BadPicture for what is no picture or is too large, PictureNotStored when it cannot be stored."""
        if len(data) > self._limit:
            raise BadPicture(f"The picture is too large: more than {self._limit} bytes.", started=True)
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
    """Strip the texts and decode the rest: the bytes that are decoded are the bytes that are stored."""
    data = strip_text(data)
    return data, decode_all(data), hashlib.sha256(data).hexdigest(), compute_cid(data)
