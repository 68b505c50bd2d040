"""``GET /pictures/{name}``: pictures that are kept.

No key is asked for: a name is the SHA-256 of the picture, which nobody guesses who does not have the picture already.
What a name stands for never changes, so answers may be cached for ever.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from openai_dify_proxy.api.errors import error_response
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
"""Numbers that no picture reaches are not read at all."""


async def serve_picture(request: Request) -> Response:
    """The picture, part of it (``Range``), or that the client has it already (``If-None-Match``)."""
    pictures: Pictures = request.app.state.images.pictures
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
    if _has_it(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    # A link is signed for GET alone.
    link = await pictures.store.signed_link(name) if request.method == "GET" else None
    if link is not None:
        return RedirectResponse(link, 307, headers={**_SAFE, "Cache-Control": _SIGNED})
    return await _bytes(request, pictures, record, headers)


async def _bytes(request: Request, pictures: Pictures, record: PictureRecord, headers: dict[str, str]) -> Response:
    asked = _asked_range(request, headers["ETag"])
    part = _part(asked, record.size) if asked is not None else _Part(0, record.size)
    if part is None:
        response = error_response(RangeNotSatisfiable(f"The picture has {record.size} bytes.", param="Range"))
        response.headers["Content-Range"] = f"bytes */{record.size}"
        return response
    headers["Content-Length"] = str(part.end - part.start)
    if asked is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{record.size}"
    data = b"" if request.method == "HEAD" else await pictures.store.read(record.name, part.start, part.end)
    return Response(data, 200 if asked is None else 206, headers, record.media_type)


def _has_it(if_none_match: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags


def _asked_range(request: Request, etag: str) -> tuple[str, str] | None:
    """The first and last byte as the client wrote them. None for the whole picture.

    That is also the answer to several ranges at once, to a range in other units, and to a range of something else
    (``If-Range``), as HTTP allows or wants.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    return None if first and last and int(last) < int(first) else (first, last)


class _Part(NamedTuple):
    """``end`` is the first byte that is not part of it."""

    start: int
    end: int


def _part(asked: tuple[str, str], size: int) -> _Part | None:
    """None when the picture has none of these bytes."""
    first, last = asked
    if first:
        part = _Part(int(first), min(int(last) + 1, size) if last else size)
    else:
        part = _Part(max(size - int(last), 0), size)
    return part if part.start < part.end else None
