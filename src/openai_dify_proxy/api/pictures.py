"""``GET /pictures/{name}``: stored pictures.

No key is required: a name is the SHA-256 of the picture, which nobody can guess without having the picture.
The bytes behind a name never change, so clients may cache answers for ever.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import NotFound, RangeNotSatisfiable
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.service import Pictures

_FOREVER = "public, max-age=31536000, immutable"
_SIGNED = "public, max-age=1800"
"""A signed link lives for an hour."""

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
"""Longer numbers, which no picture reaches, do not match."""


async def serve_picture(request: Request) -> Response:
    """Answer with the picture, with part of it (``Range``), or with 304 (``If-None-Match``)."""
    pictures = services_of(request).images.pictures
    name = request.path_params["name"]
    record = await pictures.store.record(name)
    if record is None:
        raise NotFound("There is no such picture.")
    etag = f'"{record.sha256}"'
    headers = {
        **_SAFE,
        "ETag": etag,
        "Cache-Control": _FOREVER,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{record.name}"',
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    # A link is signed for GET alone.
    link = await pictures.store.signed_link(name) if request.method == "GET" else None
    if link is not None:
        return RedirectResponse(link, 307, headers={**_SAFE, "Cache-Control": _SIGNED})
    return await _bytes(request, pictures, record, headers)


async def _bytes(request: Request, pictures: Pictures, record: PictureRecord, headers: dict[str, str]) -> Response:
    requested = _requested_range(request, headers["ETag"])
    part = _part(requested, record.size) if requested is not None else _ByteRange(0, record.size)
    if part is None:
        response = error_response(RangeNotSatisfiable(f"The picture has {record.size} bytes.", param="Range"))
        response.headers["Content-Range"] = f"bytes */{record.size}"
        return response
    headers["Content-Length"] = str(part.end - part.start)
    if requested is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{record.size}"
    data = b"" if request.method == "HEAD" else await pictures.store.read(record.name, part.start, part.end)
    return Response(data, 200 if requested is None else 206, headers, record.media_type)


def _matches(if_none_match: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags


def _requested_range(request: Request, etag: str) -> tuple[str, str] | None:
    """Return the first and last byte as the client wrote them; None for the whole picture.

    Several ranges, other units, and a range of another version (``If-Range``) also get the whole picture, as HTTP
    allows or requires.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    return None if first and last and int(last) < int(first) else (first, last)


class _ByteRange(NamedTuple):
    """``end`` is exclusive."""

    start: int
    end: int


def _part(requested: tuple[str, str], size: int) -> _ByteRange | None:
    """Return the bytes to send; None when the picture has none of those requested."""
    first, last = requested
    if first:
        part = _ByteRange(int(first), min(int(last) + 1, size) if last else size)
    else:
        part = _ByteRange(max(size - int(last), 0), size)
    return part if part.start < part.end else None
