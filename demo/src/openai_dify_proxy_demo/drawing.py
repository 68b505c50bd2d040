"""The contents of produced files. Words after `DRAW` or `FILE`, such as `DRAW:svg:internal`, select kind and link."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable

from openai_dify_proxy_demo.file_store import INTERNAL_ORIGIN, LINK_SECONDS, MadeFile
from openai_dify_proxy_demo.replicate.painting import paint

SIDE = 256
"""The width and height of a picture whose size is not an input."""

MAX_SIDE = 1024

MAX_MEGABYTES = 200

HTML = b"<!doctype html><title>Drawing</title><script>alert(document.domain)</script><p>A drawing.</p>\n"
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><script>alert(document.domain)</script>'
    b'<circle cx="32" cy="32" r="30" fill="red"/></svg>\n'
)
TEXT = b"A drawing in words: a red circle.\n"
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 64 64]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_MEGABYTES = re.compile(r"(\d{1,3})mb")


def draw(words: tuple[str, ...], text: str, seed: int, size: object = None) -> MadeFile:
    """Return the file that the words describe; without any, a PNG.

    `text` is the caption of a picture. `size` is `WIDTHxHEIGHT`; anything else selects the default.
    """
    kind = next((word for word in words if word in _KINDS), "png")
    extension, file_type, media_type, make = _KINDS[kind]
    content = make(text, seed, _pixels(size))
    return MadeFile(
        name=f"{uuid.uuid4().hex}.{extension}",
        kind=file_type,
        media_type=media_type,
        content=content,
        padding=max(0, _bytes(words) - len(content)),
        origin="" if "relative" in words else INTERNAL_ORIGIN if "internal" in words else None,
        age=LINK_SECONDS + 1 if "expired" in words else 0,
        missing="gone" in words,
    )


def _pixels(size: object) -> tuple[int, int]:
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        return SIDE, SIDE
    width, height = (min(max(int(side), 1), MAX_SIDE) for side in found.groups())
    return width, height


def _bytes(words: tuple[str, ...]) -> int:
    found = next(filter(None, map(_MEGABYTES.fullmatch, words)), None)
    return min(int(found[1]), MAX_MEGABYTES) * 1024 * 1024 if found else 0


def _painter(picture_format: str) -> Callable[[str, int, tuple[int, int]], bytes]:
    def encode(text: str, seed: int, size: tuple[int, int]) -> bytes:
        out = io.BytesIO()
        paint(text, seed, size).save(out, picture_format)
        return out.getvalue()

    return encode


def _fixed(content: bytes) -> Callable[[str, int, tuple[int, int]], bytes]:
    return lambda _text, _seed, _size: content


_KINDS: dict[str, tuple[str, str, str, Callable[[str, int, tuple[int, int]], bytes]]] = {
    "png": ("png", "image", "image/png", _painter("PNG")),
    "jpeg": ("jpg", "image", "image/jpeg", _painter("JPEG")),
    "webp": ("webp", "image", "image/webp", _painter("WEBP")),
    "svg": ("svg", "image", "image/svg+xml", _fixed(SVG)),
    "html": ("html", "document", "text/html", _fixed(HTML)),
    "text": ("txt", "document", "text/plain", _fixed(TEXT)),
    "pdf": ("pdf", "document", "application/pdf", _fixed(PDF)),
    "lying": ("png", "image", "image/png", _fixed(HTML)),
}
"""Extension, type in Dify, media type and content of each kind. `lying` is a web page that is called a picture."""
