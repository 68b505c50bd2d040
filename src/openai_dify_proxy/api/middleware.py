"""The layers around the handlers: the id and the record of every request, CORS, and the most frequent routes.

Headers are added through the responder, and not by a wrapper around ``send``, since streams do not use ``send``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from time import perf_counter

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.api.handlers import Handler
from openai_dify_proxy.api.responder import record_of, responder_of
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.telemetry import RequestRecord, RequestRecords, bind_request, new_id
from openai_dify_proxy.turns.client import ClientDisconnected

log = structlog.get_logger("openai_dify_proxy.access")

_VALID_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")


class RequestMiddleware:
    """Fills in and closes the record of each request, and adds three headers to its response.

    They are ``x-request-id``, ``openai-version`` and ``openai-processing-ms``, the milliseconds until the headers.

    A client's own ``x-request-id`` is used if it is at most 128 harmless characters.
    """

    def __init__(self, app: ASGIApp, records: RequestRecords) -> None:
        self._app = app
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        responder = responder_of(scope)
        record = responder.record
        record.begin(record.received)
        record.id = request_id = request_id_of(dict(scope["headers"]))
        record.method, record.path = scope["method"], scope["path"]
        record.client = scope["client"] and scope["client"][0]
        self._records.begin(record, scope["headers"])
        bind_request(request_id)
        responder.add_headers.append(lambda: standard_headers(request_id, record))
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # the server is shutting down: no traceback for each open request
            if responder.status == 0:
                await error_response(shutting_down())(scope, receive, send)
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("handler_failed")
            if responder.status == 0:
                await error_response(InternalError(INTERNAL_ERROR))(scope, receive, send)
        finally:
            record.status = responder.status or record.status
            if responder.disconnected and not record.departure:
                record.departure = "client_gone"
            self._records.close(record)


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's CORS middleware, with the headers of responses added through the responder."""

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """Compute the headers of the response in advance, and pass the request on."""
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        await self.send(start, _discard, request_headers)
        responder_of(scope).add_headers.append(lambda: start["headers"])
        await self.app(scope, receive, send)


async def _discard(_message: Message) -> None:
    pass


class HotRoutes:
    """Serves the POST routes of ``handlers``, by path, without Starlette's router and exception layer.

    ``handlers`` has the template and the handler of each path.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, tuple[str, Handler]]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        template, handler = found
        record_of(scope).route = template
        response: ASGIApp
        try:
            response = await handler(Request(scope, receive))
        except ProxyError as error:
            response = error_response(error)
        except ClientDisconnected:
            return  # the client is gone; the status 499 is for the log only
        await response(scope, receive, send)


def standard_headers(request_id: str, record: RequestRecord) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers of every response."""
    return (
        (b"x-request-id", request_id.encode()),
        (b"openai-version", b"2020-10-01"),
        (b"openai-processing-ms", b"%d" % ((perf_counter() - record.started) * 1000)),
    )


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the id of a request: the client's own, if it is at most 128 harmless characters, else a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and _VALID_ID.fullmatch(text := sent.decode("latin-1")):
        return text
    return new_id("req_", 20)
