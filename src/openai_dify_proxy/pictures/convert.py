"""From one picture format to another."""

from __future__ import annotations

import io
from typing import Any, Literal

from PIL import Image, ImageOps

from openai_dify_proxy.pictures.decoding import identify, in_eight_bits, in_thread, open_picture

Target = Literal["png", "jpg", "webp"]

DEFAULT_QUALITY = 90
"""Of JPEG and WebP, where the client asks for none; below it, edges of text and line art begin to show."""

_PILLOW_NAMES = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_OPAQUE = ("RGB", "L")
_INKS = ("CMYK", "YCbCr", "LAB")


async def convert(data: bytes, *, to: Target, quality: int | None = None) -> bytes:
    """The picture in the format ``to``; untouched if that is its format. ``quality`` goes from 0 to 100.

    Transparency becomes white in a JPEG. Of an animation the first frame stays. Raises BadPicture.
    """
    if identify(data).extension == to:
        return data
    return await in_thread(_convert, data, to, DEFAULT_QUALITY if quality is None else quality)


def _convert(data: bytes, to: Target, quality: int) -> bytes:
    with open_picture(data) as opened:
        picture = ImageOps.exif_transpose(opened)
        options: dict[str, Any] = {} if to == "png" else {"quality": quality}
        # A profile of inks says nothing about the red, green and blue that they become.
        options["icc_profile"] = None if picture.mode in _INKS else picture.info.get("icc_profile")
        output = io.BytesIO()
        _in_mode_of(in_eight_bits(picture), to).save(output, _PILLOW_NAMES[to], **options)
    return output.getvalue()


def _in_mode_of(picture: Image.Image, to: Target) -> Image.Image:
    if to != "jpg" and picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return picture if picture.mode in _OPAQUE else picture.convert("RGB")
