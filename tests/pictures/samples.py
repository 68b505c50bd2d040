"""Sample pictures made with Pillow, with text in every place that their formats allow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms, ImageSequence, PngImagePlugin

SECRET = "a red fox, studio light, by nobody"
"""Fills every place for text in a format; no stripped picture contains it."""


def _profile() -> bytes:
    """Return an sRGB profile without its creation time and hash."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:84] + bytes(16) + made[100:]


PROFILE = _profile()


def image(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Return a gradient: no two pixels of a row are equal."""
    gradient = Image.linear_gradient("L").resize(size)
    coloured = Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.FLIP_LEFT_RIGHT), gradient.rotate(180)))
    if mode == "RGBA":
        coloured.putalpha(gradient)
    return coloured.convert(mode)


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    output = io.BytesIO()
    picture.save(output, file_format, **options)
    return output.getvalue()


def pixels(data: bytes) -> list[bytes]:
    """Return the decoded frames."""
    with Image.open(io.BytesIO(data)) as picture:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(picture)]


def exif(orientation: int = 1) -> Image.Exif:
    fields = Image.Exif()
    fields[0x010E] = SECRET  # ImageDescription
    fields[0x0112] = orientation
    fields[0x9286] = SECRET  # UserComment
    return fields


def png(**more: Any) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", SECRET)
    text.add_text("workflow", SECRET * 50, zip=True)
    text.add_itxt("description", SECRET)
    text.add(b"tIME", b"\x07\xea\x01\x02\x03\x04\x05")
    text.add(b"prVt", SECRET.encode())
    options = {"pnginfo": text, "exif": exif(), "icc_profile": PROFILE, "dpi": (72, 72)} | more
    return encode(image("RGBA"), "PNG", **options) + SECRET.encode()


def jpeg(*, orientation: int = 1, **more: Any) -> bytes:
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET}</x:xmpmeta>".encode()
    options = {"exif": exif(orientation), "xmp": xmp, "comment": SECRET, "icc_profile": PROFILE} | more
    data = encode(image(), "JPEG", **options)
    photoshop = b"Photoshop 3.0\0" + SECRET.encode()
    return data[:2] + segment(0xED, photoshop) + data[2:] + SECRET.encode()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def webp(picture: Image.Image | None = None, **more: Any) -> bytes:
    options = {"exif": exif().tobytes(), "xmp": SECRET.encode(), "icc_profile": PROFILE} | more
    return encode(picture or image("RGBA"), "WEBP", **options) + SECRET.encode()


def gif(frames: int = 3) -> bytes:
    first, *rest = [image("P").rotate(90 * number) for number in range(frames)]
    data = encode(first, "GIF", save_all=True, append_images=rest, duration=100, loop=7, comment=SECRET.encode())
    block = sub_blocks(SECRET.encode())
    extras = b"\x21\xff\x0bXMP DataXMP" + block + b"\x21\x01\x0c" + bytes(12) + block
    return data[:-1] + extras + b"\x3b" + SECRET.encode()


def sub_blocks(content: bytes) -> bytes:
    return bytes((len(content),)) + content + b"\0"


def animated_webp() -> bytes:
    first, *rest = [image("RGBA").rotate(90 * number) for number in range(3)]
    return webp(first, save_all=True, append_images=rest, duration=100)


SAMPLES = {
    "png": png(),
    "png of a palette": encode(image("P"), "PNG", transparency=3),
    "png in greys of 16 bits": encode(image("I;16"), "PNG"),
    "apng": png(save_all=True, append_images=[image("RGBA").rotate(90)], duration=50),
    "jpeg": jpeg(),
    "progressive jpeg": jpeg(progressive=True),
    "jpeg with restarts": jpeg(restart_marker_rows=1),
    "jpeg in four inks": encode(image("CMYK"), "JPEG"),
    "turned jpeg": jpeg(orientation=6),
    "webp": webp(),
    "lossless webp": webp(lossless=True),
    "simple webp": encode(image(), "WEBP"),
    "animated webp": animated_webp(),
    "gif": gif(1),
    "animated gif": gif(),
}


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header declares more pixels than it contains."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixel_data = zlib.compress(bytes(64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel_data) + chunk(b"IEND", b"")
