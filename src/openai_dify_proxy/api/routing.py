"""Requests that match no route: served under the normal form of their path, or answered with a suggestion.

A path that matches a route never reaches this module. The cost of a suggestion is bounded for any path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.api.unsupported import unsupported_endpoint
from openai_dify_proxy.errors import InternalError, MethodNotAllowed, NotFound, ProxyError

_BASE_PATHS = frozenset({"/", "/v1"})
_DIFY_PATHS = ("/chat-messages", "/completion-messages", "/workflows/run")
_REPEATED_VERSION = re.compile(r"\A(?:/v1){2,}(?=/|\Z)")
_MAX_SEGMENTS = 6
"""Segments at the end of a path that are searched for a route; routes have four, or more with a model name."""

_MAX_PATH = 200
"""Characters of a path that are compared with routes and quoted."""


def normal_path(path: str) -> str:
    """Return the path without doubled slashes, a trailing slash or a repeated ``/v1``. Idempotent."""
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return _REPEATED_VERSION.sub("/v1", path.rstrip("/")) or "/"


class NormalPathRouter:
    """The router's fallback for a path that matches no route: routes its normal form, if that differs.

    The route sees the normal path only, so authentication and everything else treat it as any other request. There
    is no redirect: clients would repeat a POST as a GET, or without its key.
    """

    def __init__(self, router: ASGIApp) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = normal_path(scope["path"])
        if path == scope["path"]:
            raise HTTPException(404)
        await self._router({**scope, "path": path}, receive, send)


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """Answer Starlette's own errors: an unknown route, or a method that the route does not accept."""
    assert isinstance(exc, HTTPException)
    if exc.status_code not in (404, 405):
        return error_response(InternalError(exc.detail))
    path = normal_path(request.scope["path"])
    allowed = _allowed_methods(request.app.routes, path)
    response = error_response(_routing_error(request, path, allowed))
    if response.status_code == 405:
        response.headers["allow"] = ", ".join(allowed)
    return response


def _routing_error(request: Request, path: str, allowed: Sequence[str]) -> ProxyError:
    method, routes = request.method, request.app.routes
    if path in _BASE_PATHS:
        return NotFound("This is the base URL of the OpenAI API. Try GET /v1/models, or POST /v1/chat/completions.")
    intended = _intended_route(routes, method, path)
    if intended is None and (unsupported := unsupported_endpoint(path)) is not None:
        return unsupported
    intended = intended or _misspelled_route(routes, method, path) or _route_at_end(routes, method, path, 1)
    hint = "" if intended is None else f" Did you mean {method} {intended}?"
    if allowed:
        return MethodNotAllowed(f"{path[:_MAX_PATH]} accepts only {', '.join(allowed)}, not {method}.{hint}")
    public = services_of(request).public_url
    base = "ends in '/v1'" if public is None else f"is '{public.rstrip('/')}/v1'"
    return NotFound(f"There is no route {method} {path[:_MAX_PATH]}.{hint} The base URL of the API {base}.")


def _intended_route(routes: Sequence[BaseRoute], method: str, path: str) -> str | None:
    if method == "POST" and path.endswith(_DIFY_PATHS):
        return "/v1/chat/completions"
    base = path.rpartition("/")[0]
    # A single segment, as in /v1/chats/completions, counts only behind a base URL that is a route.
    least = 1 if base in _BASE_PATHS or _allowed_methods(routes, base) else 2
    return _route_at_end(routes, method, path, least) or _route_at_end(routes, method, path.lower(), 2)


def _allowed_methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    matching = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    return sorted({method for route in matching for method in route.methods or ()})


def _route_at_end(routes: Sequence[BaseRoute], method: str, path: str, least: int) -> str | None:
    """Return the route's path that ends ``path`` and has ``least`` segments or more without ``/v1``, or None.

    A wrong base URL puts segments before it, as in ``/v1/chat/completions/chat/completions`` or ``/api/v1/models``.
    """
    segments = path.strip("/").split("/")[-_MAX_SEGMENTS:]
    for start in range(len(segments) - least + 1):
        end = "/" + "/".join(segments[start:])
        for candidate in (f"/v1{end}", end):
            scope = {"type": "http", "method": method, "path": candidate}
            if any(route.matches(scope)[0] is Match.FULL for route in routes):
                return candidate[:_MAX_PATH]
    return None


def _misspelled_route(routes: Sequence[BaseRoute], method: str, path: str) -> str | None:
    import difflib  # noqa: PLC0415 - few paths need it

    known = [route.path for route in routes if isinstance(route, Route) and method in (route.methods or ())]
    return next(iter(difflib.get_close_matches(path[:_MAX_PATH].lower(), known, n=1, cutoff=0.8)), None)
