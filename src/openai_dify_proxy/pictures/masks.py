"""Converts masks to the polarity of a model. Errors are InvalidRequest, since masks come from clients."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.pictures.decoding import in_thread, open_picture, to_eight_bits


async def invert_mask(data: bytes, *, param: str = "mask") -> bytes:
    """Return the inverted mask as a greyscale PNG. Raises InvalidRequest."""
    try:
        return await in_thread(_invert, data)
    except BadPicture as error:
        raise InvalidRequest(
            "The mask is damaged. It must be a PNG, JPEG, WebP or GIF.", param=param, log=error.log
        ) from error


async def mask_in_polarity(data: bytes, *, black_repaints: bool, param: str = "mask") -> bytes:
    """Return a black and white mask in the polarity of the model.

    The areas to repaint are transparent in OpenAI's masks, and white in masks without transparency. Raises
    InvalidRequest.
    """
    try:
        mask = await in_thread(_from_alpha, data, black_repaints)
    except BadPicture as error:
        raise InvalidRequest(
            "The mask is damaged. It must be a PNG, JPEG, WebP or GIF.", param=param, log=error.log
        ) from error
    if mask is not None:
        return mask
    return await invert_mask(data, param=param) if black_repaints else data


def _invert(data: bytes) -> bytes:
    with open_picture(data) as mask:
        return _png(ImageOps.invert(_flattened(mask)))


def _flattened(mask: Image.Image) -> Image.Image:
    """Convert to greyscale on a black background."""
    if not mask.has_transparency_data:
        return to_eight_bits(mask).convert("L")
    rgba = mask.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", mask.size, "black"), rgba).convert("L")


def _from_alpha(data: bytes, black_repaints: bool) -> bytes | None:
    with open_picture(data) as mask:
        if not mask.has_transparency_data:
            return None
        alpha = mask.convert("RGBA").getchannel("A")
        return _png(alpha if black_repaints else ImageOps.invert(alpha))


def _png(picture: Image.Image) -> bytes:
    output = io.BytesIO()
    picture.save(output, "PNG")
    return output.getvalue()
