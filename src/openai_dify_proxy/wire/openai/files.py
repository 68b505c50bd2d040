"""The messages of ``/v1/files``.

Source: the OpenAI API reference, and requests of the official SDKs.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field


class FileObject(Struct, kw_only=True):
    """A stored file. ``bytes`` is its size; times are in seconds since the epoch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[FileObject] = field(default_factory=list)
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileDeleted(Struct, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
