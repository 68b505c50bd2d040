"""``GET /pictures/{name}``: stored pictures.

No key is required: a name is the SHA-256 of the picture, which cannot be guessed.
The bytes of a name never change, so responses may be cached indefinitely.
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

_IMMUTABLE = "public, max-age=31536000, immutable"
_SIGNED = "public, max-age=1800"
"""Half of the hour for which a signed link is valid."""

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
"""At most 18 digits: longer numbers exceed the size of any picture."""


async def serve_picture(request: Request) -> Response:
    """Return the picture, a part of it (``Range``), or 304 (``If-None-Match``)."""
    pictures = services_of(request).images.pictures
    name = request.path_params["name"]
    record = await pictures.store.record(name)
    if record is None:
        raise NotFound("The picture does not exist, or has been removed.")
    etag = f'"{record.sha256}"'
    headers = {
        **_SAFE,
        "ETag": etag,
        "Cache-Control": _IMMUTABLE,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{record.name}"',
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    # Signed links are valid for GET only. The console loads pictures from its own origin only.
    own = request.headers.get("sec-fetch-site") == "same-origin"
    link = await pictures.store.signed_link(name) if request.method == "GET" and not own else None
    if link is not None:
        return RedirectResponse(link, 307, headers={**_SAFE, "Cache-Control": _SIGNED})
    return await _bytes(request, pictures, record, headers)


async def _bytes(request: Request, pictures: Pictures, record: PictureRecord, headers: dict[str, str]) -> Response:
    requested = _requested_range(request, headers["ETag"])
    part = _part(requested, record.size) if requested is not None else _ByteRange(0, record.size)
    if part is None:
        response = error_response(
            RangeNotSatisfiable(f"The range is outside the picture, which has {record.size} bytes.", param="Range")
        )
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
    """Return the first and last byte as sent by the client; None for the whole picture.

    Multiple ranges, other units, and a range of another version (``If-Range``) return the whole picture, as HTTP
    allows or requires.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    return None if first and last and int(last) < int(first) else (first, last)


class _ByteRange(NamedTuple):
    """A range of bytes. ``end`` is exclusive."""

    start: int
    end: int


def _part(requested: tuple[str, str], size: int) -> _ByteRange | None:
    """Return the bytes to send; None if the range is outside the picture."""
    first, last = requested
    if first:
        part = _ByteRange(int(first), min(int(last) + 1, size) if last else size)
    else:
        part = _ByteRange(max(size - int(last), 0), size)
    return part if part.start < part.end else None
