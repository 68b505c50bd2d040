"""Detects picture formats, and removes metadata from pictures.

Models write prompts, workflows and EXIF into their pictures. ``strip_text`` removes them without changing a pixel: it
copies the chunks, segments and blocks on an allow-list, and drops all others. Colour profiles and the orientation are
on the list, since pictures look wrong without them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

MAX_PARTS = 500_000
"""The largest number of chunks, segments or blocks. It bounds CPU time; pictures of 100 MB have far fewer."""

Extension = Literal["png", "jpg", "webp", "gif"]
OutputFormat = Literal["png", "jpg", "webp"]
"""The formats that the proxy can write."""


class PictureFormat(NamedTuple):
    """A format by its file extension and media type."""

    extension: Extension
    media_type: str


PNG: Final = PictureFormat("png", "image/png")
JPEG: Final = PictureFormat("jpg", "image/jpeg")
WEBP: Final = PictureFormat("webp", "image/webp")
GIF: Final = PictureFormat("gif", "image/gif")


class MalformedPicture(ValueError):
    """The bytes are truncated, or violate the specification of their format."""


def sniff(data: bytes) -> PictureFormat | None:
    """Return the format by the first bytes; None for other formats."""
    if data.startswith(_PNG_SIGNATURE):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    return GIF if data[:6] in (b"GIF87a", b"GIF89a") else None


def strip_text(data: bytes, *, max_parts: int = MAX_PARTS) -> bytes:
    """Remove text, EXIF, XMP, comments, and bytes after the end of the picture. Raises MalformedPicture.

    A picture with more than ``max_parts`` chunks, segments or blocks is malformed.
    """
    found = sniff(data)
    if found is None:
        raise MalformedPicture("The file is not a PNG, JPEG, WebP or GIF picture.")
    return _STRIPPERS[found](data, _Parts(max_parts))


def _take(data: bytes, at: int, length: int) -> bytes:
    part = data[at : at + length]
    if len(part) < length:
        raise MalformedPicture("The picture is truncated.")
    return part


class _Parts:
    """Counts the parts of one picture, up to ``limit``."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def count(self) -> None:
        if self._left == 0:
            raise MalformedPicture("The picture has too many parts.")
        self._left -= 1


# EXIF is a TIFF file: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf - directories of tagged values.

_EXIF_HEAD = b"Exif\0\0"
"""The prefix of EXIF in a JPEG. Some writers add it in other formats too."""


def _only_orientation(tiff: bytes) -> bytes:
    """Return EXIF with the orientation only; empty if the picture is upright."""
    orientation = _orientation(tiff)
    if not 2 <= orientation <= 8:
        return b""
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes((orientation,)) + b"\0\0"
    return b"MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"


def _orientation(tiff: bytes) -> int:
    """Return tag 0x0112 of the first directory; 1, which means upright, if there is none."""
    order: Literal["big", "little"] = "big" if tiff[:2] == b"MM" else "little"
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * entries, len(tiff)), 12):
        if int.from_bytes(tiff[at : at + 2], order) == 0x0112:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return 1


# PNG: https://www.w3.org/TR/png-3/ - chunks of length, type, data and CRC.

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset((
    b"IHDR", b"PLTE", b"IDAT", b"IEND",
    b"tRNS", b"bKGD", b"hIST", b"pHYs", b"sBIT",
    b"cHRM", b"cICP", b"cLLI", b"gAMA", b"iCCP", b"mDCV", b"sRGB",
    b"acTL", b"fcTL", b"fdAT",
))  # fmt: skip


def _strip_png(data: bytes, parts: _Parts) -> bytes:
    output = [_PNG_SIGNATURE]
    at = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        parts.count()
        head = _take(data, at, 8)
        kind = head[4:]
        length = 12 + int.from_bytes(head[:4])
        if kind in _PNG_CHUNKS:
            output.append(_take(data, at, length))
        elif kind == b"eXIf" and (exif := _only_orientation(data[at + 8 : at + length - 4].removeprefix(_EXIF_HEAD))):
            output.append(_png_chunk(kind, exif))
        at += length
    return b"".join(output)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


# JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B - marker segments, and entropy-coded data after each SOS.

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_APP_SEGMENTS = {_APP0: b"JFIF\0", _APP2: b"ICC_PROFILE\0", _APP14: b"Adobe"}
"""APP14 defines the colour space."""


_NO_FILL = re.compile(rb"[^\xff]")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


class _Segment(NamedTuple):
    """A JPEG segment. ``coded`` is the entropy-coded data after an SOS, else empty."""

    marker: int
    body: bytes
    coded: bytes


def _strip_jpeg(data: bytes, parts: _Parts) -> bytes:
    output = [b"\xff\xd8"]
    for marker, body, coded in _jpeg_segments(data, parts):
        if marker == _APP1 and body.startswith(_EXIF_HEAD):
            exif = _only_orientation(body.removeprefix(_EXIF_HEAD))
            body = _EXIF_HEAD + exif if exif else b""
        elif marker == _COM or (_APP0 <= marker <= _APP15 and not _is_allowed(marker, body)):
            body = b""
        if body:
            output.append(b"\xff" + bytes((marker,)) + (len(body) + 2).to_bytes(2) + body + coded)
    return b"".join([*output, b"\xff\xd9"])


def _is_allowed(marker: int, body: bytes) -> bool:
    return marker in _APP_SEGMENTS and body.startswith(_APP_SEGMENTS[marker])


def _jpeg_segments(data: bytes, parts: _Parts) -> Iterator[_Segment]:
    """Yield the segments between SOI and EOI."""
    at = 2
    while True:
        parts.count()
        lead, marker = _take(data, at, 2)
        if lead != 0xFF or marker == 0:
            raise MalformedPicture("A JPEG marker is missing.")
        if marker == _EOI:
            return
        if marker == 0xFF:  # fill bytes
            at = _find(_NO_FILL, data, at) - 1
            continue
        length = int.from_bytes(_take(data, at + 2, 2))
        if length < 2 or marker < 0xC0 or 0xD0 <= marker <= _SOI:
            raise MalformedPicture("A JPEG segment is invalid.")
        body = _take(data, at + 4, length - 2)
        at += 2 + length
        end = _scan_end(data, at) if marker == _SOS else at
        yield _Segment(marker, body, data[at:end])
        at = end


def _scan_end(data: bytes, at: int) -> int:
    """Return the position of the next marker; stuffed zeros and restart markers are part of the scan."""
    return _find(_NEXT_MARKER, data, at)


def _find(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.search(data, at)
    if match is None:
        raise MalformedPicture("The picture is truncated.")
    return match.start()


# WebP: https://developers.google.com/speed/webp/docs/riff_container - RIFF chunks, padded to even lengths.

_WEBP_CHUNKS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_FRAME_CHUNKS = frozenset((b"VP8 ", b"VP8L", b"ALPH"))
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04
_FRAME_HEAD = 16

_Chunk = tuple[bytes, bytes]


def _strip_webp(data: bytes, parts: _Parts) -> bytes:
    length = int.from_bytes(_take(data, 4, 4), "little")
    if length < 12:
        raise MalformedPicture("The WebP has no chunk.")
    body = _riff(_webp_chunks(list(_riff_chunks(_take(data, 12, length - 4), parts)), parts))
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def _webp_chunks(chunks: Sequence[_Chunk], parts: _Parts) -> Iterator[_Chunk]:
    exif = [_only_orientation(body.removeprefix(_EXIF_HEAD)) for kind, body in chunks if kind == b"EXIF"]
    turned = next(filter(None, exif), b"")
    for kind, body in chunks:
        if kind == b"VP8X":
            flags = _take(body, 0, 10)[0] & ~(_EXIF_FLAG | _XMP_FLAG)
            body = bytes((flags | (_EXIF_FLAG if turned else 0),)) + body[1:]
        elif kind == b"ANMF":
            frame = [chunk for chunk in _riff_chunks(body[_FRAME_HEAD:], parts) if chunk[0] in _WEBP_FRAME_CHUNKS]
            body = _take(body, 0, _FRAME_HEAD) + _riff(frame)
        if kind in _WEBP_CHUNKS:
            yield kind, body
    if turned:
        yield b"EXIF", turned


def _riff_chunks(data: bytes, parts: _Parts) -> Iterator[_Chunk]:
    at = 0
    while at < len(data):
        parts.count()
        head = _take(data, at, 8)
        length = int.from_bytes(head[4:], "little")
        yield head[:4], _take(data, at + 8, length)
        at += 8 + length + length % 2


def _riff(chunks: Iterable[_Chunk]) -> bytes:
    return b"".join(kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2) for kind, body in chunks)


# GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt - blocks; extensions and images end in lists of sub-blocks.

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_APPLICATIONS = (b"\x0bNETSCAPE2.0", b"\x0bANIMEXTS1.0", b"\x0bICCRGBG1012")
"""The repeat count of an animation, under two names, and the colour profile."""


def _strip_gif(data: bytes, parts: _Parts) -> bytes:
    at = 13 + _colour_table(_take(data, 0, 13)[10])
    output = [_take(data, 0, at)]
    while (kind := _take(data, at, 1)[0]) != _TRAILER:
        end = _gif_block_end(data, at, kind, parts)
        block = data[at:end]
        if kind == _IMAGE or _is_allowed_extension(block):
            output.append(block)
        at = end
    return b"".join([*output, b"\x3b"])


def _is_allowed_extension(block: bytes) -> bool:
    label = block[1]
    return label == _GRAPHIC_CONTROL or (label == _APPLICATION and block[2:14] in _APPLICATIONS)


def _gif_block_end(data: bytes, at: int, kind: int, parts: _Parts) -> int:
    parts.count()
    if kind == _EXTENSION:
        at += 2
    elif kind == _IMAGE:
        at += 10 + _colour_table(_take(data, at, 10)[9]) + 1
    else:
        raise MalformedPicture("A GIF block is invalid.")
    while (length := _take(data, at, 1)[0]) != 0:
        parts.count()
        at += 1 + length
    return at + 1


def _colour_table(flags: int) -> int:
    """Return the length of the colour table in bytes, from the flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_STRIPPERS: Final = {PNG: _strip_png, JPEG: _strip_jpeg, WEBP: _strip_webp, GIF: _strip_gif}
