"""Converts pictures between formats."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageOps

from openai_dify_proxy.pictures.decoding import identify, in_thread, open_picture, to_eight_bits
from openai_dify_proxy.translate.pictures.formats import OutputFormat

DEFAULT_QUALITY = 90
"""The default for JPEG and WebP. Lower values show artefacts at the edges of text and line art."""

_PILLOW_NAMES = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_OPAQUE_MODES = ("RGB", "L")
_INK_MODES = ("CMYK", "YCbCr", "LAB")


async def convert(data: bytes, *, to: OutputFormat, quality: int | None = None) -> bytes:
    """Return the picture in the format ``to``; unchanged if it has that format. ``quality`` is from 0 to 100.

    Transparent areas become white in a JPEG. An animation is reduced to its first frame. Raises BadPicture.
    """
    if identify(data).extension == to:
        return data
    return await in_thread(_convert, data, to, DEFAULT_QUALITY if quality is None else quality)


def _convert(data: bytes, to: OutputFormat, quality: int) -> bytes:
    with open_picture(data) as opened:
        picture = ImageOps.exif_transpose(opened)
        options: dict[str, Any] = {} if to == "png" else {"quality": quality}
        # The profile of an ink mode does not apply to the RGB picture that is saved.
        options["icc_profile"] = None if picture.mode in _INK_MODES else picture.info.get("icc_profile")
        output = io.BytesIO()
        _to_mode_of(to_eight_bits(picture), to).save(output, _PILLOW_NAMES[to], **options)
    return output.getvalue()


def _to_mode_of(picture: Image.Image, to: OutputFormat) -> Image.Image:
    if to != "jpg" and picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture if picture.mode in _OPAQUE_MODES else picture.convert("RGB")
