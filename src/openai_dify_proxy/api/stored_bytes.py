"""Serves stored bytes whole or in part: ranges, ETags, and headers that prevent a browser from executing them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.responder import responder_of
from openai_dify_proxy.errors import RangeNotSatisfiable

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
"""At most 18 digits: longer numbers exceed every size."""

log = structlog.get_logger(__name__)


class ByteRange(NamedTuple):
    """A range of bytes. ``end`` is exclusive."""

    start: int
    end: int


class RangeAnswer(NamedTuple):
    """The part of a content that a request wants, with the status and headers of the answer."""

    part: ByteRange
    status: int
    headers: dict[str, str]


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """Return the answer to a client that has the content with the ``ETag`` of ``headers`` already, else None."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] not in tags and "*" not in tags:
        return None
    return Response(status_code=304, headers=_complete(headers))


def answer_range(request: Request, size: int, headers: dict[str, str]) -> RangeAnswer | Response:
    """Return what a request wants of a content of ``size`` bytes, or the error if that is outside of it.

    ``headers`` are those of the whole content, with its ``ETag``.
    """
    requested = _requested_range(request, headers["ETag"])
    headers = _complete(headers)
    part = _part(requested, size) if requested is not None else ByteRange(0, size)
    if part is None:
        response = error_response(
            RangeNotSatisfiable(f"The range is outside the content, which has {size} bytes.", param="Range")
        )
        response.headers["Content-Range"] = f"bytes */{size}"
        return response
    headers["Content-Length"] = str(part.end - part.start)
    if requested is None:
        return RangeAnswer(part, 200, headers)
    headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    return RangeAnswer(part, 206, headers)


class PortionsResponse(Response):
    """An ASGI response that sends the portions of a content, each before the next is read.

    The head is sent once the first portion was read. A client that takes longer than ``write_timeout`` seconds for a
    portion is disconnected.
    """

    def __init__(
        self, portions: AsyncGenerator[bytes, None], answer: RangeAnswer, media_type: str, *, write_timeout: float
    ) -> None:
        super().__init__(None, answer.status, answer.headers, media_type)
        self._portions = portions
        self._write_timeout = write_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        responder = responder_of(scope)
        async with aclosing(self._portions) as portions:
            first = await anext(portions, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await self._send(send, first)
                async for portion in portions:
                    if responder.disconnected:
                        return
                    await self._send(send, portion)
            except TimeoutError:
                log.info("client_stalled")
                responder.abort()
                return
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, portion: bytes) -> None:
        async with asyncio.timeout(self._write_timeout):
            await send({"type": "http.response.body", "body": portion, "more_body": True})


def _complete(headers: dict[str, str]) -> dict[str, str]:
    return {**SAFE, "Accept-Ranges": "bytes", **headers}


def _requested_range(request: Request, etag: str) -> tuple[str, str] | None:
    """Return the first and last byte as sent by the client; None for the whole content.

    Multiple ranges, other units, and a range of another version (``If-Range``) return the whole content, as HTTP
    allows or requires.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    return None if first and last and int(last) < int(first) else (first, last)


def _part(requested: tuple[str, str], size: int) -> ByteRange | None:
    """Return the bytes to send; None if the range is outside the content."""
    first, last = requested
    if first:
        part = ByteRange(int(first), min(int(last) + 1, size) if last else size)
    else:
        part = ByteRange(max(size - int(last), 0), size)
    return part if part.start < part.end else None
