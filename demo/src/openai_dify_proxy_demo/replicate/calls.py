"""Requests to the API: authentication, parsing, logging, and errors in Replicate's format."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from openai_dify_proxy_demo.common import read_json
from openai_dify_proxy_demo.replicate.errors import ProblemError, unauthenticated
from openai_dify_proxy_demo.replicate.log import LoggedCall
from openai_dify_proxy_demo.replicate.state import ReplicateState
from openai_dify_proxy_demo.serving import DROP

RATE_LIMIT = {"ratelimit-remaining": "2999", "ratelimit-reset": "1"}
CREATION_RATE_LIMIT = {"ratelimit-remaining": "599", "ratelimit-reset": "1"}


class ConnectionDropped(Exception):
    """Raised to abort the connection without a response."""


@dataclass(frozen=True)
class ReplicateCall:
    """One authenticated request."""

    request: Request
    state: ReplicateState
    raw: bytes
    body: Any
    """The JSON body, or None without one."""

    @property
    def base_url(self) -> str:
        """The base URL of the API, from the client's `Host` header."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}/v1"

    @property
    def path(self) -> Mapping[str, str]:
        return self.request.path_params


ReplicateHandler = Callable[[ReplicateCall], Awaitable[Response]]


def endpoint(handler: ReplicateHandler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: check the token, log the call, and turn ProblemError into a response."""

    async def handle(request: Request) -> Response:
        state: ReplicateState = request.app.state.demo
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        body, malformed = read_json(raw, request.headers.get("content-type", ""))
        authorization = request.headers.get("authorization")
        authorized = _is_authorized(authorization, state.token)
        status: int | None = None
        try:
            if not authorized:
                raise unauthenticated(authorization)
            if malformed:
                raise ProblemError(400, "The request body is not valid JSON.", "Bad Request")
            response = await handler(ReplicateCall(request, state, raw, body))
            status = response.status_code
        except ProblemError as error:
            response, status = error.response(), error.status
        except ConnectionDropped:
            response = AbortedResponse()
        finally:
            _log(state, request, body, authorized=authorized, status=status)
        return response

    return handle


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] = RATE_LIMIT) -> Response:
    return Response(msgspec.json.encode(body) + b"\n", status, dict(headers), "application/json")


class AbortedResponse(Response):
    """Aborts the connection instead of responding."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][DROP]["drop"]()
        while (await receive())["type"] != "http.disconnect":
            continue


def _is_authorized(authorization: str | None, token: str) -> bool:
    scheme, _, credentials = (authorization or "").partition(" ")
    return scheme.lower() in ("bearer", "token") and credentials == token


def _log(state: ReplicateState, request: Request, body: Any, *, authorized: bool, status: int | None) -> None:
    entry = LoggedCall(
        method=request.method,
        path=request.url.path,
        headers={name: value for name, value in request.headers.items() if name != "authorization"},
        authorized=authorized,
        body=body,
        status=status,
        at=time.monotonic(),
    )
    state.log.change(lambda: state.log.calls.append(entry))
