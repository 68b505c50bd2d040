"""Reads the content parts that hold files: pictures, sound, video and documents.

A part holds a URL, a data URI, base64 data, or the id of a file. Clients nest it in different ways, and some send a
string where OpenAI's reference has an object; all forms are accepted. Contents are decoded straight from the bytes of
the request, so that a large file is in memory only twice.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec import Raw, Struct, json

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.file_types import detect, extension_of, kind_of, safe_name
from openai_dify_proxy.translate.openai.parameter_errors import (
    missing_parameter,
    unreadable_request,
)
from openai_dify_proxy.translate.turn_request import FileContents, FileKind, SentFile
from openai_dify_proxy.wire.openai.chat import FILE_SOURCE, MAX_FILES, ContentPart, FileSource, RequestFile
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_URL: Final = 8192
MAX_ID: Final = 256
MAX_FILE_NAME: Final = 1000
MAX_DATA_HEAD: Final = 1024
"""Characters before the comma of a data URI."""

_NESTED: dict[str, tuple[str, FileKind]] = {
    "image_url": ("image_url", "image"),
    "input_image": ("image_url", "image"),
    "input_audio": ("input_audio", "audio"),
    "audio_url": ("audio_url", "audio"),
    "video_url": ("video_url", "video"),
    "input_video": ("video_url", "video"),
    "file": ("file", "document"),
    "input_file": ("file", "document"),
}
"""The field of each type of part, and the default class of its files."""

FILE_PARTS = frozenset(_NESTED)
"""OpenAI's types of content parts that hold a file, and those of other servers."""

_BACKSLASH = re.compile(rb"\\")
_SPACES = b" \t\r\n"
_STRING = json.Decoder(str)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

_Bytes = bytes | memoryview
_T = TypeVar("_T")


class _Found(Struct, frozen=True):
    """Where a part holds its file: a text with a URL or data, or an id."""

    text: _Bytes = b""
    file_id: str = ""
    name: str = ""


class FileReader(Entity):
    """Reads the files of one request. ``contents`` is None until the first one is found."""

    contents: FileContents | None = None
    _count: int = 0

    def read(self, part: ContentPart, param: str) -> SentFile:
        """Return the file of a part of one of ``FILE_PARTS``. Raises InvalidRequest with the part's path."""
        self._count += 1
        if self._count > MAX_FILES:
            raise InvalidRequest(
                f"The request has more than {MAX_FILES} files, with those of its earlier messages. Send fewer files.",
                param=param,
                code="too_many_files",
            )
        if self.contents is None:
            self.contents = FileContents()
        field, kind = _NESTED[part.type]
        found = _find(part, field, param)
        if found.file_id:
            return SentFile(kind, file_id=found.file_id, param=param)
        prefix = bytes(found.text[:8]).lower()
        if prefix.startswith((b"http://", b"https://")):
            return _at_url(found, kind, param)
        data, media_type = _decode(
            found.text, param, plain=field in ("input_audio", "file"), is_uri=prefix[:5] == b"data:"
        )
        return self._add(data, found.name, media_type, param)

    def _add(self, data: bytes, name: str, media_type: str, param: str) -> SentFile:
        if not data:
            raise InvalidRequest(f"'{param}' is empty. Send the content of a file.", param=param, code="invalid_value")
        assert self.contents is not None
        found = detect(data, name, media_type)
        digest = sha256(data).hexdigest()
        self.contents.add(digest, data)
        return SentFile(found.kind, safe_name(name), found.extension, found.media_type, len(data), digest, param=param)


def read_dify_files(files: Sequence[RequestFile] | None) -> tuple[SentFile, ...]:
    """Return the files of the body field ``files``. Raises InvalidRequest."""
    return tuple(_dify_file(file, f"files[{index}]") for index, file in enumerate(files or ()))


def _dify_file(file: RequestFile, param: str) -> SentFile:
    if file.transfer_method == "local_file":
        if not file.upload_file_id:
            raise missing_parameter(f"{param}.upload_file_id")
        return SentFile(
            file.type, upload_id=_short(file.upload_file_id, MAX_ID, f"{param}.upload_file_id"), param=param
        )
    url = file.url or ""
    if not url.lower().startswith(("http://", "https://")):
        raise InvalidRequest(
            f"'{param}.url' must be an http or https URL. Send other files in a content part.",
            param=f"{param}.url",
            code="invalid_value",
        )
    name = _url_name(_short(url, MAX_URL, f"{param}.url"))
    return SentFile(file.type, safe_name(name), extension_of(name), url=url, param=param)


def _find(part: ContentPart, field: str, param: str) -> _Found:
    """Return the file of a part, from its field or from the part itself."""
    holder: Raw = getattr(part, field)
    if bytes(memoryview(holder)[:1]) == b"{":
        param = f"{param}.{field}"
        source: FileSource | ContentPart = _decoded(FILE_SOURCE, holder, param)
    else:
        if holder != _NULL:
            return _Found(_text(holder, f"{param}.{field}"), name=_name(part, param))
        source = part
    found = next((raw for raw in _candidates(source) if raw != _NULL), None)
    if found is not None:
        return _Found(_text(found, param), name=_name(source, param))
    if source.file_id != _NULL:
        file_id = bytes(_text(source.file_id, f"{param}.file_id")).decode("utf-8", "replace")
        return _Found(file_id=_short(file_id, MAX_ID, f"{param}.file_id"), name="")
    raise missing_parameter(f"{param}.{_EXPECTED.get(field, 'url') if isinstance(source, FileSource) else field}")


_NULL = Raw(b"null")
_EXPECTED = {"file": "file_data", "input_audio": "data"}


def _candidates(source: FileSource | ContentPart) -> tuple[Raw, ...]:
    if isinstance(source, FileSource):
        return source.url, source.data, source.file_data, source.file_url
    return source.file_data, source.file_url


def _decoded(decoder: json.Decoder[_T], raw: Raw, param: str) -> _T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as exc:
        raise unreadable_request(exc, raw, decoder.type, at=param) from None


def _name(source: FileSource | ContentPart, param: str) -> str:
    if source.filename == _NULL:
        return ""
    return bytes(_text(source.filename, f"{param}.filename"))[-MAX_FILE_NAME:].decode("utf-8", "replace")


def _text(raw: Raw, param: str) -> _Bytes:
    """Return the UTF-8 of a JSON string, without a copy if it has no escapes."""
    view = memoryview(raw)
    if bytes(view[:1]) == b'"' and _BACKSLASH.search(view) is None:
        return view[1:-1]
    return _decoded(_STRING, raw, param).encode()


def _at_url(found: _Found, kind: FileKind, param: str) -> SentFile:
    url = _short(bytes(found.text[: MAX_URL * 4]).decode("utf-8", "replace"), MAX_URL, param)
    name = found.name or _url_name(url)
    extension = extension_of(name)
    if kind_of(extension) != "custom":
        kind = kind_of(extension)
    return SentFile(kind, safe_name(name), extension, url=url, param=param)


def _url_name(url: str) -> str:
    """Return the last part of a URL's path."""
    path = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")[2]
    name = path.rpartition("/")[2] if "/" in path else ""
    return unquote_to_bytes(name).decode("utf-8", "replace")


def _short(text: str, limit: int, param: str) -> str:
    if len(text) > limit:
        raise InvalidRequest(
            f"'{param}' has more than {limit} characters. Send a shorter one.",
            param=param,
            code="string_above_max_length",
        )
    return text


def _decode(text: _Bytes, param: str, *, plain: bool, is_uri: bool) -> tuple[bytes, str]:
    """Return the content and the media type of a data URI, or of base64 data if ``plain`` allows it."""
    if not is_uri:
        if not plain:
            raise _malformed(param, "an http or https URL, or a data URI")
        return _decode_base64(text, param), ""
    head, comma, _ = bytes(text[:MAX_DATA_HEAD]).partition(b",")
    if not comma:
        raise _malformed(param, "a data URI such as data:image/png;base64,…")
    media_type, _, encoding = head[5:].decode("utf-8", "replace").rpartition(";")
    body = text[len(head) + 1 :]
    if encoding.strip().lower() == "base64":
        return _decode_base64(body, param), media_type
    return unquote_to_bytes(bytes(body)), head[5:].decode("utf-8", "replace")


def _decode_base64(text: _Bytes, param: str) -> bytes:
    """Decode base64, with or without padding and line breaks, in the standard or the URL-safe alphabet."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        pass
    data = bytes(text).translate(_URL_SAFE, _SPACES).rstrip(b"=")
    try:
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except binascii.Error:
        raise _malformed(param, "standard base64") from None


def _malformed(param: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for '{param}'. Send {expected}.",
        param=param,
        code="invalid_value",
    )
