"""The record of a picture, stored in the same place as ``<sha256>.json``."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from msgspec import Struct

from openai_dify_proxy.translate.pictures.formats import Extension
from openai_dify_proxy.wire.reading import UNREADABLE

_NAME = re.compile(r"([0-9a-f]{64})\.(?:png|jpg|webp|gif)")


class PictureFacts(Struct, frozen=True, kw_only=True):
    """The origin of a picture. ``created`` is in seconds since the epoch, ``prompt`` None unless it may be stored."""

    created: int
    model: str | None = None
    prediction_id: str | None = None
    seed: int | None = None
    prompt: str | None = None


class PictureRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored picture. ``cid`` is the computed one until a node has returned its own."""

    sha256: str
    extension: Extension
    media_type: str
    size: int
    width: int
    height: int
    created: int
    model: str | None = None
    prediction_id: str | None = None
    seed: int | None = None
    prompt: str | None = None
    cid: str | None = None
    ipfs: Literal["off", "pending", "sent"] = "off"

    @property
    def name(self) -> str:
        return f"{self.sha256}.{self.extension}"


def hash_of(name: str) -> str | None:
    """Return the SHA-256 in a picture's name; None for any other text, such as a path."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def merge(stored: PictureRecord, new: PictureRecord) -> PictureRecord:
    """Return the record of a picture that was generated a second time.

    Stored values take precedence over new ones. ``created`` is the later time, so the new link lasts for the full
    retention time.
    """
    return msgspec.structs.replace(
        stored,
        created=max(stored.created, new.created),
        model=stored.model if stored.model is not None else new.model,
        prediction_id=stored.prediction_id if stored.prediction_id is not None else new.prediction_id,
        seed=stored.seed if stored.seed is not None else new.seed,
        prompt=stored.prompt if stored.prompt is not None else new.prompt,
        cid=stored.cid if stored.cid is not None else new.cid,
        ipfs=new.ipfs if stored.ipfs == "off" else stored.ipfs,
    )


def is_removable(record: PictureRecord, before: float) -> bool:
    """Return whether the picture was created before the time ``before``, and has no pending upload."""
    return record.created < before and record.ipfs != "pending"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(PictureRecord)


def encode_record(record: PictureRecord) -> bytes:
    """Encode a record, indented for operators who read these files."""
    return msgspec.json.format(_encode(record), indent=2) + b"\n"


def decode_record(data: bytes) -> PictureRecord | None:
    """Decode a record; None for an invalid one, such as an edited file or one of a later release."""
    try:
        return _decoder.decode(data)
    except UNREADABLE:
        return None
