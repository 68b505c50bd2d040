"""Request bodies read as structs, and structs sent as JSON responses."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from msgspec import Struct, json
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from openai_dify_proxy.api.body_budget import SMALL_BODY, BodyBudget, Reservation
from openai_dify_proxy.api.responder import Headers, responder_of
from openai_dify_proxy.errors import BodyTooLarge, InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import unreadable_request
from openai_dify_proxy.translate.turn_request import FileContents
from openai_dify_proxy.turns.client import ClientDisconnected
from openai_dify_proxy.wire.complexity import check_complexity
from openai_dify_proxy.wire.reading import UNREADABLE

_T = TypeVar("_T")

_RESERVATION = "openai_dify_proxy.body_reservation"
"""The key of a large body's reservation in the scope of its request."""

FIRST_STEP = 64 * 1024
"""Bytes that are reserved for a chunked body at first; later twice the bytes received."""


class BodyReader:
    """Reads request bodies of at most ``limit`` bytes, with memory from ``budget``."""

    def __init__(self, limit: int, budget: BodyBudget) -> None:
        self.limit = limit
        self._budget = budget

    async def read_json(self, request: Request, decoder: json.Decoder[_T]) -> _T:
        """Return the body as a struct.

        Raises InvalidRequest with the field's path, BodyTooLarge, ServerBusy, and ClientDisconnected.
        """
        return read_json(await self.read(request), decoder)

    async def read_form(
        self, request: Request, *, max_files: int, max_fields: int, until_end: bool = False
    ) -> FormData:
        """Return a form of at most so many parts. ``until_end`` is as for ``read``.

        Raises the same errors as ``read_json``.
        """
        body = bytes(await self.read(request, until_end=until_end))

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await Request(request.scope, replay).form(
                max_files=max_files, max_fields=max_fields, max_part_size=self.limit
            )
        except HTTPException as exc:
            raise InvalidRequest(f"The form is not valid multipart/form-data: {exc.detail.rstrip('.')}.") from None

    async def read(self, request: Request, *, until_end: bool = False) -> bytes | bytearray:
        """Return the raw body.

        A large one holds its reservation until the response starts, since it is decoded by then; with ``until_end``,
        until the request ends. Raises BodyTooLarge, ServerBusy, and ClientDisconnected if the client disconnects before
        its end.
        """
        reservation = Reservation(self._budget)
        try:
            body = await self._collect(request, reservation)
        except BaseException:
            reservation.release()
            raise
        if len(body) <= SMALL_BODY:
            reservation.release()
        else:
            _release_later(request, reservation, until_end=until_end)
        return body

    async def _collect(self, request: Request, reservation: Reservation) -> bytes | bytearray:
        declared = request.headers.get("content-length", "")
        covered = int(declared) if declared.isdigit() else 0
        if covered > self.limit:
            raise self._too_large()
        await reservation.cover(covered)
        body: bytes | bytearray = b""
        try:
            async for part in request.stream():
                size = len(body) + len(part)
                if size > self.limit:
                    raise self._too_large()
                if size > covered:
                    covered = min(self.limit, max(FIRST_STEP, 2 * size))
                    await reservation.cover(covered)
                if not body:
                    body = part
                elif isinstance(body, bytearray):
                    body += part
                elif part:
                    body = bytearray(body)
                    body += part
        except ClientDisconnect:
            raise ClientDisconnected from None
        return body

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is too large. This server accepts at most {self.limit} bytes.")


def _release_later(request: Request, reservation: Reservation, *, until_end: bool) -> None:
    """Release the memory when the response starts, unless ``until_end``; else when the task of the request ends."""

    def release() -> Headers:
        reservation.release()
        return ()

    if not until_end:
        responder_of(request.scope).add_headers.append(release)
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: reservation.drop())
    request.scope[_RESERVATION] = reservation


def hold_memory(request: Request, contents: FileContents | None) -> None:
    """Let the files of a request hold the memory that was reserved for its body, until they are dropped."""
    reservation: Reservation | None = request.scope.get(_RESERVATION)
    if contents is not None and reservation is not None:
        reservation.hold(contents.size)
        contents.on_drop = reservation.drop


def read_json(body: bytes | bytearray, decoder: json.Decoder[_T]) -> _T:
    """Return a body as a struct. Raises InvalidRequest with the field's path, or with the place where the JSON ends."""
    try:
        check_complexity(body)
        return decoder.decode(body)
    except UNREADABLE as exc:
        raise unreadable_request(exc, body, decoder.type) from None


def json_response(value: Struct) -> Response:
    return Response(json.encode(value), media_type="application/json")
