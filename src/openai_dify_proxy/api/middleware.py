"""The id, timing and access log line of every request. Plain ASGI, so that streams pass through unbuffered."""

from __future__ import annotations

import asyncio
import re
import time
from secrets import token_hex

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.errors import InternalError
from openai_dify_proxy.telemetry import bind_request

log = structlog.get_logger("openai_dify_proxy.access")

_VALID_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")


class RequestMiddleware:
    """Adds ``x-request-id``, ``openai-version`` and ``openai-processing-ms``, the milliseconds until the headers.

    A client's own ``x-request-id`` is used if it is at most 128 harmless characters.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        bind_request(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-version", b"2020-10-01"),
                    (b"openai-processing-ms", b"%d" % ((time.perf_counter() - started) * 1000)),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server is shutting down: no traceback for each open request
            if status == 0:
                await error_response(shutting_down())(scope, receive, send_with_id)
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            if status == 0:
                await error_response(InternalError(INTERNAL_ERROR))(scope, receive, send_with_id)
        finally:
            log.info(
                "request_finished",
                method=scope["method"],
                path=scope["path"],
                status=status or 499,
                ms=round((time.perf_counter() - started) * 1000),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _VALID_ID.fullmatch(text):
                return text
    return f"req_{token_hex(10)}"
