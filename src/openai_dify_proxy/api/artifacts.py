"""``GET /artifacts/{name}``: files that Dify's apps produced.

No key is required, since pages show pictures without one: a name is signed, expires, and cannot be guessed. Only
pictures that were decoded are shown; a browser stores everything else, so nothing runs under this origin.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.stored_bytes import PortionsResponse, answer_range, not_modified
from openai_dify_proxy.files.artifacts.records import Artifact


async def serve_artifact(request: Request) -> Response:
    """Return the file, a part of it (``Range``), or 304 (``If-None-Match``)."""
    services = services_of(request)
    artifact = await services.artifacts.find(request.path_params["name"])
    headers = {
        "ETag": f'"{artifact.id}"',
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": _disposition(artifact),
        "Referrer-Policy": "no-referrer",
    }
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    answer = answer_range(request, artifact.size, headers)
    if isinstance(answer, Response):
        return answer
    if request.method == "HEAD":
        return Response(b"", answer.status, answer.headers, artifact.media_type)
    portions = services.artifacts.read(artifact, answer.part.start, answer.part.end)
    return PortionsResponse(portions, answer, artifact.media_type, write_timeout=services.timing.write_timeout)


def _disposition(artifact: Artifact) -> str:
    kind = "inline" if artifact.inline else "attachment"
    return f"{kind}; filename*=UTF-8''{quote(artifact.filename, safe='')}"
