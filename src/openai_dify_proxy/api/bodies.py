"""Request bodies read as structs, and structs sent as JSON responses."""

from __future__ import annotations

import re
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

_FAULT = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)")
"""msgspec's text for a body that is not JSON: the reason and the offset."""

_UNPAIRED_SURROGATE = re.compile(rb"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", re.IGNORECASE)
"""Half of an escaped character beyond U+FFFF, as JavaScript sends for text that was cut inside one."""


class BodyReader:
    """Reads request bodies of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def read_json(self, request: Request, decoder: json.Decoder[_T]) -> _T:
        """Return the body as a struct. Raises InvalidRequest with the field's path, BodyTooLarge, and ClientGone."""
        return read_json(await self.read(request), decoder)

    async def read_form(self, request: Request, *, max_files: int, max_fields: int) -> FormData:
        """Return a form of at most so many parts. Raises InvalidRequest, BodyTooLarge, and ClientGone."""
        body = await self.read(request)

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await Request(request.scope, replay).form(
                max_files=max_files, max_fields=max_fields, max_part_size=self._limit
            )
        except HTTPException as exc:
            raise InvalidRequest(f"The form is not valid multipart/form-data: {exc.detail}.") from None

    async def read(self, request: Request) -> bytes:
        """Return the raw body. Raises BodyTooLarge, and ClientGone if the client disconnects before its end."""
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
        return BodyTooLarge(f"The request body is too large. This server accepts at most {self._limit} bytes.")


def read_json(body: bytes, decoder: json.Decoder[_T]) -> _T:
    """Return a body as a struct. Raises InvalidRequest with the field's path, or with the place where the JSON ends."""
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
        raise InvalidRequest(_not_json(body, exc)) from None


def _not_json(body: bytes, error: Exception) -> str:
    """Return the message for a body that is not JSON. It quotes nothing of the body."""
    if not body.strip():
        return "The request body is empty. Send a JSON object."
    if isinstance(error, RecursionError):
        return "The request body is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        return f"The request body is not valid UTF-8: invalid bytes at {_place(body, _first_invalid_byte(body))}."
    fault = _FAULT.fullmatch(str(error))
    if fault is not None:
        return f"The request body is not valid JSON: {fault[1]} near {_place(body, int(fault[2]))}."
    if (half := _UNPAIRED_SURROGATE.search(body)) is not None:  # msgspec reports it as a truncated body
        return f"The request body is not valid JSON: unpaired surrogate at {_place(body, half.start())}."
    return f"The request body is not valid JSON: it ends in the middle of a value, after {len(body)} bytes."


def _first_invalid_byte(body: bytes) -> int:
    """Return the offset in the body; msgspec's is that in the string."""
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        return exc.start
    return 0


def _place(body: bytes, offset: int) -> str:
    line = body.count(b"\n", 0, offset) + 1
    column = offset - body.rfind(b"\n", 0, offset)
    return f"line {line}, column {column}"


def json_response(value: Struct) -> Response:
    return Response(json.encode(value), media_type="application/json")
