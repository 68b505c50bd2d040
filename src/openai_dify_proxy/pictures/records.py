"""What is known of a picture, kept beside it as ``<sha256>.json``."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from msgspec import Struct

from openai_dify_proxy.translate.pictures.formats import Extension

_NAME = re.compile(r"([0-9a-f]{64})\.(?:png|jpg|webp|gif)")


class PictureFacts(Struct, frozen=True, kw_only=True):
    """Where a picture comes from. ``created`` is in seconds; ``prompt`` is given only if it shall be kept."""

    created: int
    model: str | None = None
    prediction_id: str | None = None
    seed: int | None = None
    prompt: str | None = None


class PictureRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture that is kept. ``cid`` is computed here until a node has told its own."""

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
    """The SHA-256 in a picture's name; None if this is no such name, and so never a path to anywhere else."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def merge(kept: PictureRecord, again: PictureRecord) -> PictureRecord:
    """The record of a picture that was made a second time.

    The first making stands, completed by what only the second knows. Its age begins anew, since the link that is
    given out now shall last as long as any other.
    """
    return msgspec.structs.replace(
        kept,
        created=max(kept.created, again.created),
        model=kept.model if kept.model is not None else again.model,
        prediction_id=kept.prediction_id if kept.prediction_id is not None else again.prediction_id,
        seed=kept.seed if kept.seed is not None else again.seed,
        prompt=kept.prompt if kept.prompt is not None else again.prompt,
        cid=kept.cid if kept.cid is not None else again.cid,
        ipfs=again.ipfs if kept.ipfs == "off" else kept.ipfs,
    )


def is_done_with(record: PictureRecord, before: float) -> bool:
    """Whether the picture is from before then, and not still to be uploaded."""
    return record.created < before and record.ipfs != "pending"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(PictureRecord)


def encode_record(record: PictureRecord) -> bytes:
    """For people too, who look into the directory."""
    return msgspec.json.format(_encode(record), indent=2) + b"\n"


def decode_record(data: bytes) -> PictureRecord | None:
    """None for what is no record: a file that somebody edited, or of a release to come."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
