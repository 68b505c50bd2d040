"""Errors as responses: OpenAI's envelope, and the headers by which SDKs decide whether to retry."""

from __future__ import annotations

import structlog
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.errors import ProxyError, ShuttingDown
from openai_dify_proxy.translate.openai.errors import encode_error

log = structlog.get_logger(__name__)

INTERNAL_ERROR = "The proxy failed unexpectedly. Report the request id to the operator."


def error_response(error: ProxyError) -> Response:
    """Return the error's envelope with its status and headers, and log its detail."""
    log_detail(error)
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    if error.started or (error.status >= 429 and not error.retryable):
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(encode_error(error), error.status, headers, "application/json")


async def on_proxy_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ProxyError)
    return error_response(exc)


async def on_client_disconnect(_request: Request, _exc: Exception) -> Response:
    """Return status 499, which only the access log shows."""
    return Response(status_code=499)


def log_detail(error: ProxyError) -> None:
    """Log the reason that is for the operator only, if there is one."""
    if error.log is not None:
        log.error("request_failed", error=error.message, detail=error.log)


def log_failure(error: ProxyError) -> None:
    """Log a failed turn without Dify's message, which may quote the question."""
    log.warning("turn_failed", error=type(error).__name__, code=error.code)


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is shutting down and stopped the request. Send it again later.", started=True)
