"""``/v1/files``: files that clients upload for later requests. Only their caller can use them."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import Services, identity_of, services_of
from openai_dify_proxy.errors import InvalidRequest, NotFound
from openai_dify_proxy.files.stored_files import StoredFile
from openai_dify_proxy.translate.openai.conversation_items import page, whole_number
from openai_dify_proxy.translate.openai.parameter_errors import empty_value, missing_parameter, too_long
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.files import FileDeleted, FileList, FileObject

MAX_FIELDS = 8
"""Text fields of an upload: ``purpose``, and ``expires_after`` in two parts, which has no effect."""

MAX_PURPOSE = 64
DEFAULT_PURPOSE = "user_data"
MAX_PAGE, MAX_LIMIT = 100, 10_000


async def create_file(request: Request) -> Response:
    """Store the file of a form."""
    services = services_of(request)
    caller = await services.admit(request, takes_forms=True)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequest("Send the file as multipart/form-data, in the field 'file'.", param="file")
    form = await services.bodies.read_form(request, max_files=1, max_fields=MAX_FIELDS)
    try:
        file, purpose = form.get("file"), form.get("purpose") or DEFAULT_PURPOSE
        if not isinstance(file, UploadFile):
            raise missing_parameter("file")
        if not isinstance(purpose, str) or len(purpose) > MAX_PURPOSE:
            raise too_long("purpose", str(purpose), MAX_PURPOSE)
        data = await file.read()
    finally:
        await form.close()
    if not data:
        raise empty_value("file", "")
    end_user = await services.stored.responses.end_user_hash(identity_of(request, caller).end_user)
    record = await services.files.add(
        caller.id, file.filename or "", purpose, file.content_type or "", data, end_user=end_user
    )
    return json_response(_object(record))


async def list_files(request: Request) -> Response:
    """List the caller's files, newest first unless ``order`` is ``asc``."""
    services = services_of(request)
    caller = await services.admit(request)
    query = request.query_params
    purpose = query.get("purpose")
    records = [record for record in await services.files.all(caller.id) if purpose in (None, record.purpose)]
    found = page(
        [_object(record) for record in records],
        after=query.get("after"),
        limit=_page_size(query.get("limit")),
        order=query.get("order"),
    )
    return json_response(
        FileList(
            data=found.data, first_id=found.first_id or None, last_id=found.last_id or None, has_more=found.has_more
        )
    )


async def retrieve_file(request: Request) -> Response:
    _, _, record = await _load(request)
    return json_response(_object(record))


async def retrieve_file_content(request: Request) -> Response:
    """Return the content as an attachment: a browser must not show a client's file under this origin."""
    services, caller, record = await _load(request)
    data = await services.files.content(caller.id, record)
    if data is None:
        raise NotFound("The content of the file is no longer stored. Upload it again.", param="file_id")
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff", "Cache-Control": "private"}
    return Response(data, 200, headers, "application/octet-stream")


async def delete_file(request: Request) -> Response:
    services, caller, record = await _load(request)
    await services.files.remove(caller.id, record)
    return json_response(FileDeleted(id=record.name))


async def _load(request: Request) -> tuple[Services, Caller, StoredFile]:
    services = services_of(request)
    caller = await services.admit(request)
    return services, caller, await services.files.load(caller.id, request.path_params["file_id"])


def _page_size(limit: str | None) -> str | None:
    """Return a page size that ``page`` accepts: OpenAI allows 10000 here, and 100 in other lists."""
    size = None if limit is None else whole_number(limit)
    return str(MAX_PAGE) if size is not None and MAX_PAGE < size <= MAX_LIMIT else limit


def _object(record: StoredFile) -> FileObject:
    return FileObject(
        id=record.name,
        bytes=record.size,
        created_at=record.created_at,
        expires_at=record.expires_at,
        filename=record.filename,
        purpose=record.purpose,
    )
