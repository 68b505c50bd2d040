"""What happens around every request: its id, its time, its line in the log. Plain ASGI, since streams pass through."""

from __future__ import annotations

import asyncio
import re
import time
from secrets import token_hex

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_dify_proxy.api.errors import FAULT, error_response, shutting_down
from openai_dify_proxy.errors import InternalError
from openai_dify_proxy.telemetry import bind_request

log = structlog.get_logger("openai_dify_proxy.access")

_SANE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")


class RequestMiddleware:
    """Adds ``x-request-id`` (the client's own, if it sent a sane one), ``openai-version`` and
    ``openai-processing-ms``: milliseconds until the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
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
                    (b"openai-processing-ms", b"%d" % ((time.perf_counter() - began) * 1000)),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server stops; a traceback for every open request would help nobody
            if status == 0:
                await error_response(shutting_down())(scope, receive, send_with_id)
        except Exception:  # a fault of ours: its text may hold anything, so only the log gets it
            log.exception("unexpected_error")
            if status == 0:
                await error_response(InternalError(FAULT))(scope, receive, send_with_id)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status or 499,
                ms=round((time.perf_counter() - began) * 1000),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _SANE_ID.fullmatch(text):
                return text
    return f"req_{token_hex(16)}"
