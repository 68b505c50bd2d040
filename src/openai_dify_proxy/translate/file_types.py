"""Detects the types of files by their first bytes, and Dify's class of a type by its extension.

A client's names and media types are only hints: they choose between types that the bytes cannot distinguish, such as
plain text and Markdown, or the old Office formats.
Source of the signatures: https://www.iana.org/assignments/media-types and the specifications of the formats. Source of
the classes: Dify's ``constants/__init__.py``, 0.15 to 1.16.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from openai_dify_proxy.translate.audio.formats import HEAD_BYTES, M4A, WEBM, AudioFormat, detect_audio
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.translate.turn_request import FileKind

MAX_NAME: Final = 100
"""Characters of a file's name that are sent to Dify, without the extension."""

_KINDS: dict[str, FileKind] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "svg"), "image"),
    **dict.fromkeys(("mp4", "mov", "mpeg", "webm"), "video"),
    **dict.fromkeys(("mp3", "m4a", "wav", "amr", "mpga"), "audio"),
    **dict.fromkeys(
        (
            *("txt", "markdown", "md", "mdx", "pdf", "html", "htm", "xlsx", "xls", "docx", "csv", "vtt", "properties"),
            *("doc", "eml", "msg", "pptx", "xml", "epub", "ppt"),
        ),
        "document",
    ),
}
"""Dify's class of each extension; every other extension is ``custom``."""


class FileType(NamedTuple):
    """A type by its extension (without a dot) and media type."""

    extension: str
    media_type: str

    @property
    def kind(self) -> FileKind:
        return kind_of(self.extension)


def kind_of(extension: str) -> FileKind:
    """Return Dify's class of an extension without a dot."""
    return _KINDS.get(extension, "custom")


_OFFICE = "application/vnd.openxmlformats-officedocument"

_PREFIXES: tuple[tuple[bytes, FileType], ...] = (
    (b"%PDF-", FileType("pdf", "application/pdf")),
    (b"BM", FileType("bmp", "image/bmp")),
    (b"II*\0", FileType("tiff", "image/tiff")),
    (b"MM\0*", FileType("tiff", "image/tiff")),
    (b"\x1f\x8b", FileType("gz", "application/gzip")),
    (b"7z\xbc\xaf\x27\x1c", FileType("7z", "application/x-7z-compressed")),
    (b"Rar!", FileType("rar", "application/vnd.rar")),
)

_BRANDS: dict[bytes, FileType] = {
    b"M4A ": FileType(M4A.extension, M4A.media_type),
    b"M4B ": FileType(M4A.extension, M4A.media_type),
    b"qt  ": FileType("mov", "video/quicktime"),
    b"heic": FileType("heic", "image/heic"),
    b"heix": FileType("heic", "image/heic"),
    b"mif1": FileType("heic", "image/heic"),
    b"avif": FileType("avif", "image/avif"),
}
"""The brands of ISO media files; every other brand is a video."""

_SHOWN: dict[AudioFormat, FileType] = {WEBM: FileType("webm", "video/webm")}
"""Formats of sound that count as videos in messages."""

_ZIPPED: tuple[tuple[bytes, FileType], ...] = (
    (b"word/", FileType("docx", f"{_OFFICE}.wordprocessingml.document")),
    (b"xl/", FileType("xlsx", f"{_OFFICE}.spreadsheetml.sheet")),
    (b"ppt/", FileType("pptx", f"{_OFFICE}.presentationml.presentation")),
    (b"mimetypeapplication/epub+zip", FileType("epub", "application/epub+zip")),
)
"""Names of members that mark the contents of a ZIP file."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_TYPES: dict[str, FileType] = {
    "doc": FileType("doc", "application/msword"),
    "xls": FileType("xls", "application/vnd.ms-excel"),
    "ppt": FileType("ppt", "application/vnd.ms-powerpoint"),
    "msg": FileType("msg", "application/vnd.ms-outlook"),
}

_TEXT = FileType("txt", "text/plain")
_TEXT_TYPES: dict[str, FileType] = {
    **{name: FileType(name, "text/markdown") for name in ("md", "markdown", "mdx")},
    **{name: FileType(name, "text/html") for name in ("html", "htm")},
    **{
        name: FileType(name, "text/plain")
        for name in ("txt", "properties", "log", "py", "js", "ts", "java", "c", "cpp", "go", "rs", "sh", "sql", "toml")
    },
    "csv": FileType("csv", "text/csv"),
    "vtt": FileType("vtt", "text/vtt"),
    "xml": FileType("xml", "text/xml"),
    "svg": FileType("svg", "image/svg+xml"),
    "json": FileType("json", "application/json"),
    "yaml": FileType("yaml", "application/yaml"),
    "yml": FileType("yml", "application/yaml"),
    "eml": FileType("eml", "message/rfc822"),
}
"""The types of text that only a name distinguishes."""

_MEDIA_TYPES: dict[str, str] = {
    "text/markdown": "md",
    "text/html": "html",
    "text/csv": "csv",
    "text/vtt": "vtt",
    "text/xml": "xml",
    "application/xml": "xml",
    "application/json": "json",
    "image/svg+xml": "svg",
    "message/rfc822": "eml",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
}
"""The extensions of media types that the bytes do not prove."""

UNKNOWN = FileType("bin", "application/octet-stream")
_PROBE = 4096
"""Bytes that decide whether a file is a text."""

_BYTE_ORDER_MARKS = b"\xff\xfe", b"\xfe\xff"
"""The beginnings of texts in UTF-16. The first one may also begin a frame of MPEG audio, layer I, which is rare."""

_EXTENSION = re.compile(r"^[a-z0-9]{1,10}$")
_UNSAFE = re.compile(r"[^\w .,()+=@~-]+")
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def detect(data: bytes, name: str = "", media_type: str = "") -> FileType:
    """Return the type of a file. ``name`` and ``media_type`` are the client's hints."""
    picture = sniff(data)
    if picture is not None:
        return FileType(picture.extension, picture.media_type)
    hint = extension_of(name) or _MEDIA_TYPES.get(media_type.partition(";")[0].strip().lower(), "")
    return _by_signature(data, hint) or _by_text(data, hint) or UNKNOWN


def extension_of(name: str) -> str:
    """Return the extension of a name or of the path of a URL in lower case, or an empty string."""
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    return extension if _EXTENSION.match(extension) else ""


def safe_name(name: str) -> str:
    """Return a client's name of a file, without its directory, its extension, and characters that Dify rejects."""
    base = re.split(r"[/\\]", name[-1000:])[-1]
    if extension_of(base):
        base = base.rpartition(".")[0]
    return _UNSAFE.sub("_", base).strip(" ._")[:MAX_NAME].rstrip(" .")


def _by_signature(data: bytes, hint: str) -> FileType | None:
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], FileType("mp4", "video/mp4"))
    if (sound := detect_audio(data[:HEAD_BYTES])) is not None and not data.startswith(_BYTE_ORDER_MARKS):
        return _SHOWN.get(sound) or FileType(sound.extension, sound.media_type)
    if data[:4] == b"RIFF":
        return FileType("avi", "video/x-msvideo") if data[8:12] == b"AVI " else UNKNOWN
    if data[:4] == b"PK\x03\x04":
        return _first(_ZIPPED, data) or FileType("zip", "application/zip")
    if data.startswith(_OLE):
        return _OLE_TYPES.get(hint, UNKNOWN)
    return next((found for prefix, found in _PREFIXES if data.startswith(prefix)), None)


def _first(marks: Sequence[tuple[bytes, FileType]], data: bytes) -> FileType | None:
    return next((found for mark, found in marks if mark in data), None)


def _by_text(data: bytes, hint: str) -> FileType | None:
    """Return the type of a text in UTF-8 or UTF-16. Its last character may be cut off."""
    probe = data[:_PROBE]
    if not probe.startswith(_BYTE_ORDER_MARKS):
        if _CONTROL.search(probe):
            return None
        try:
            probe.decode()
        except UnicodeDecodeError as error:
            if len(data) <= _PROBE or error.start < len(probe) - 3:
                return None
    return _TEXT_TYPES.get(hint, _TEXT)
