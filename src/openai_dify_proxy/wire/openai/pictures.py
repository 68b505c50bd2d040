"""The messages of ``/v1/stored_pictures``, a route of the proxy's own: the stored pictures, for operators."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class PictureObject(Struct, kw_only=True):
    """A stored picture. ``created`` is in seconds since the epoch, ``size`` in bytes.

    ``gateway`` is its link on IPFS, and ``can_upload`` says whether the server can send it there.
    """

    object: Literal["picture"] = "picture"
    name: str
    url: str
    media_type: str
    size: int
    width: int
    height: int
    created: int
    model: str | None
    prediction_id: str | None
    seed: int | None
    prompt: str | None
    cid: str | None
    ipfs: Literal["off", "pending", "sent"]
    gateway: str | None
    can_upload: bool


class PictureList(Struct, kw_only=True):
    """Pictures, newest first."""

    object: Literal["list"] = "list"
    data: list[PictureObject]
    has_more: bool


class PictureDeleted(Struct, kw_only=True):
    object: Literal["picture"] = "picture"
    id: str
    deleted: bool = True
