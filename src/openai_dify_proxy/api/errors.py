"""Errors as responses: OpenAI's envelope, and the headers by which SDKs decide whether to retry."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.responder import record_of
from openai_dify_proxy.errors import ProxyError, ShuttingDown
from openai_dify_proxy.translate.openai.errors import encode_error

LONGEST_WAIT = 60
"""Seconds that an SDK should wait for. Some ignore a longer ``Retry-After``, others sleep that long."""

INTERNAL_ERROR = "The proxy failed unexpectedly. Report the request id to the operator."


def error_response(error: ProxyError) -> Response:
    """Return the error's envelope with its status and headers. Sending it records the error."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:.15g}"
    too_long = error.retry_after is not None and error.retry_after > LONGEST_WAIT
    if error.started or (error.status >= 429 and (not error.retryable or too_long)):
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _ErrorResponse(error, headers)


class _ErrorResponse(Response):
    media_type = "application/json"

    def __init__(self, error: ProxyError, headers: dict[str, str]) -> None:
        super().__init__(encode_error(error), error.status, headers)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record_of(scope).fail(self._error)
        await super().__call__(scope, receive, send)


async def on_proxy_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ProxyError)
    return error_response(exc)


async def on_client_disconnect(_request: Request, _exc: Exception) -> Response:
    """Return status 499, which only the access log shows."""
    return Response(status_code=499)


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is shutting down and stopped the request. Send it again later.", started=True)
