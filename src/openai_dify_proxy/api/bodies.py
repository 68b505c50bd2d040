"""Request bodies read as structs, and structs sent as JSON responses."""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, json
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from openai_dify_proxy.errors import BodyTooLarge, InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import unreadable_request
from openai_dify_proxy.turns.client import ClientDisconnected
from openai_dify_proxy.wire.complexity import check_complexity
from openai_dify_proxy.wire.reading import UNREADABLE

_T = TypeVar("_T")


class BodyReader:
    """Reads request bodies of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def read_json(self, request: Request, decoder: json.Decoder[_T]) -> _T:
        """Return the body as a struct.

        Raises InvalidRequest with the field's path, BodyTooLarge, and ClientDisconnected.
        """
        return read_json(await self.read(request), decoder)

    async def read_form(self, request: Request, *, max_files: int, max_fields: int) -> FormData:
        """Return a form of at most so many parts. Raises InvalidRequest, BodyTooLarge, and ClientDisconnected."""
        body = await self.read(request)

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await Request(request.scope, replay).form(
                max_files=max_files, max_fields=max_fields, max_part_size=self._limit
            )
        except HTTPException as exc:
            raise InvalidRequest(f"The form is not valid multipart/form-data: {exc.detail.rstrip('.')}.") from None

    async def read(self, request: Request) -> bytes:
        """Return the raw body. Raises BodyTooLarge, and ClientDisconnected if the client disconnects before its end."""
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        parts = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > self._limit:
                    raise self._too_large()
                parts.append(part)
        except ClientDisconnect:
            raise ClientDisconnected from None
        return b"".join(parts)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is too large. This server accepts at most {self._limit} bytes.")


def read_json(body: bytes, decoder: json.Decoder[_T]) -> _T:
    """Return a body as a struct. Raises InvalidRequest with the field's path, or with the place where the JSON ends."""
    try:
        check_complexity(body)
        return decoder.decode(body)
    except UNREADABLE as exc:
        raise unreadable_request(exc, body, decoder.type) from None


def json_response(value: Struct) -> Response:
    return Response(json.encode(value), media_type="application/json")
