"""Bodies: what a request sends as a struct, and a struct as what a response sends."""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, ValidationError, json
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from openai_dify_proxy.errors import BodyTooLarge, InvalidRequest
from openai_dify_proxy.turns.client import ClientGone
from openai_dify_proxy.wire.reading import UNREADABLE, read_misfit

_T = TypeVar("_T")


class BodyReader:
    """Reads request bodies of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def read_json(self, request: Request, decoder: json.Decoder[_T]) -> _T:
        """Return the body as a struct. Raises InvalidRequest with the field's path, or BodyTooLarge."""
        return read_json(await self.read(request), decoder)

    async def read_form(self, request: Request, *, max_files: int, max_fields: int) -> FormData:
        """Return a form of at most so many parts. Raises InvalidRequest, or BodyTooLarge."""
        body = await self.read(request)

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await Request(request.scope, replay).form(
                max_files=max_files, max_fields=max_fields, max_part_size=self._limit
            )
        except HTTPException as exc:
            raise InvalidRequest(f"The form cannot be read: {exc.detail}.") from None

    async def read(self, request: Request) -> bytes:
        """Return the raw body. Raises BodyTooLarge, and ClientGone if the client left before its end."""
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
            raise ClientGone from None
        return b"".join(parts)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than the {self._limit} bytes that this server takes.")


def read_json(body: bytes, decoder: json.Decoder[_T]) -> _T:
    """Return a body as a struct. Raises InvalidRequest with the field's path."""
    try:
        return decoder.decode(body)
    except ValidationError as exc:
        misfit = read_misfit(exc)
        param = misfit.param
        if misfit.missing is not None:
            raise InvalidRequest(
                f"The request lacks the field '{param}'.", param=param, code="missing_required_parameter"
            ) from None
        raise InvalidRequest(f"{misfit.reason}{f' in {param}' if param else ''}.", param=param) from None
    except UNREADABLE as exc:
        raise InvalidRequest(f"The body is not JSON: {exc}.") from None


def json_response(value: Struct) -> Response:
    return Response(json.encode(value), media_type="application/json")
