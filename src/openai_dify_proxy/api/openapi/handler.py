"""``GET /openapi.json``. It needs no key: it describes the program, and nothing of this server's configuration."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from msgspec import json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openai_dify_proxy.api.openapi.document import build_document

OperationIds = tuple[tuple[str, str], ...]
"""Pairs of a route, such as ``GET /v1/models``, and the name of its operation."""


async def serve_openapi(request: Request) -> Response:
    """Return the OpenAPI document, or 304 if the client has it."""
    body, etag = _encoded(operation_ids(request.app.routes))
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


def operation_ids(routes: list[Route]) -> OperationIds:
    """Return the name of the handler of each route."""
    return tuple(
        (f"{method} {route.path_format}", route.endpoint.__name__)
        for route in routes
        for method in (route.methods or ())
        if method != "HEAD"
    )


@lru_cache(maxsize=1)
def _encoded(names: OperationIds) -> tuple[bytes, str]:
    body = json.encode(build_document(dict(names)))
    return body, f'"{sha256(body).hexdigest()[:32]}"'
