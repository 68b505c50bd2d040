"""``GET /openapi.json``. It needs no key: it describes the program, and nothing of this server's configuration."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from msgspec import json
from starlette.requests import Request
from starlette.responses import Response


async def serve_openapi(request: Request) -> Response:
    """Return the OpenAPI document, or 304 if the client has it."""
    body, etag = _encoded()
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


@cache
def _encoded() -> tuple[bytes, str]:
    from openai_dify_proxy.api.openapi.document import build_document  # noqa: PLC0415 - takes a megabyte

    body = json.encode(build_document())
    return body, f'"{sha256(body).hexdigest()[:32]}"'
