"""``GET /pictures/{name}``: stored pictures.

No key is required: a name is the SHA-256 of the picture, which cannot be guessed.
The bytes of a name never change, so responses may be cached indefinitely.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.stored_bytes import SAFE, answer_range, not_modified
from openai_dify_proxy.errors import NotFound

_IMMUTABLE = "public, max-age=31536000, immutable"
_SIGNED = "public, max-age=1800"
"""Half of the hour for which a signed link is valid."""


async def serve_picture(request: Request) -> Response:
    """Return the picture, a part of it (``Range``), or 304 (``If-None-Match``)."""
    pictures = services_of(request).images.pictures
    name = request.path_params["name"]
    record = await pictures.store.record(name)
    if record is None:
        raise NotFound("The picture does not exist, or has been removed.")
    headers = {
        "ETag": f'"{record.sha256}"',
        "Cache-Control": _IMMUTABLE,
        "Content-Disposition": f'inline; filename="{record.name}"',
    }
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    # Signed links are valid for GET only. The console loads pictures from its own origin only.
    own = request.headers.get("sec-fetch-site") == "same-origin"
    link = await pictures.store.signed_link(name) if request.method == "GET" and not own else None
    if link is not None:
        return RedirectResponse(link, 307, headers={**SAFE, "Cache-Control": _SIGNED})
    answer = answer_range(request, record.size, headers)
    if isinstance(answer, Response):
        return answer
    part = answer.part
    data = b"" if request.method == "HEAD" else await pictures.store.read(record.name, part.start, part.end)
    return Response(data, answer.status, answer.headers, record.media_type)
