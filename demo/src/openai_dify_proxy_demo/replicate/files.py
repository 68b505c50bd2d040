"""The Files API: uploads for predictions, which expire after a day."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from openai_dify_proxy_demo.replicate.calls import ReplicateCall, json_response
from openai_dify_proxy_demo.replicate.errors import InvalidField, invalid_input, not_found
from openai_dify_proxy_demo.replicate.log import LoggedFile
from openai_dify_proxy_demo.replicate.state import ReplicateState, StoredFile, new_identifier, timestamp

Part = tuple[str, str | None, str, bytes]
"""Name, file name, content type and content of one part of a form."""


async def upload(call: ReplicateCall) -> Response:
    parts = {part[0]: part for part in _parts(call.raw, call.request.headers.get("content-type", ""))}
    if "content" not in parts:
        raise invalid_input([InvalidField("required", "", "content is required")])
    _, filename, content_type, data = parts["content"]
    name = _text(parts, "filename") or filename or "file"
    content_type = _text(parts, "type") or content_type
    identifier = new_identifier()
    record = LoggedFile(identifier, name, content_type, len(data), hashlib.sha256(data).hexdigest())
    metadata = json.loads(_text(parts, "metadata") or "{}")
    file = StoredFile(identifier, name, content_type, data, metadata, call.state.now(), record)
    call.state.store_file(file)
    call.state.log.change(lambda: call.state.log.files.append(record))
    return json_response(_body(call, file), 201, {})


async def get(call: ReplicateCall) -> Response:
    return json_response(_body(call, _found(call.state, call.path["id"])), 200, {})


async def download(call: ReplicateCall) -> Response:
    file = _found(call.state, call.path["id"])
    return Response(file.data, media_type=file.content_type)


async def delete(call: ReplicateCall) -> Response:
    file = _found(call.state, call.path["id"])
    del call.state.files[file.id]
    record = file.record
    if record is not None:
        call.state.log.change(lambda: setattr(record, "deleted", True))
    return Response(status_code=204)


def _found(state: ReplicateState, identifier: str) -> StoredFile:
    file = state.file(identifier)
    if file is None:
        raise not_found()
    return file


def _body(call: ReplicateCall, file: StoredFile) -> dict[str, Any]:
    md5 = hashlib.md5(file.data, usedforsecurity=False).hexdigest()
    return {
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": len(file.data),
        "etag": md5,
        "checksums": {"sha256": hashlib.sha256(file.data).hexdigest(), "md5": md5},
        "metadata": file.metadata,
        "created_at": timestamp(file.created_at),
        "expires_at": timestamp(file.created_at + call.state.timing.file_lifetime),
        "urls": {"get": f"{call.base_url}/files/{file.id}"},
    }


def _text(parts: dict[str, Part], name: str) -> str:
    return parts[name][3].decode() if name in parts else ""


def _parts(raw: bytes, content_type: str) -> Iterator[Part]:
    """Yield the parts of a multipart body."""
    boundary = _header(f"Content-Type: {content_type}".encode()).get_param("boundary", header="content-type")
    if not content_type.startswith("multipart/form-data") or not boundary:
        return
    for section in (b"\r\n" + raw).split(b"\r\n--" + str(boundary).encode())[1:-1]:
        head, _, data = section.partition(b"\r\n\r\n")
        header = _header(head.strip())
        name = header.get_param("name", header="content-disposition")
        yield str(name), header.get_filename(), header.get_content_type(), data


def _header(raw: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(raw + b"\r\n\r\n", policy=email.policy.HTTP)
