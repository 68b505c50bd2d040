"""Masks in the polarity that a model wants. They come from clients, so errors here are the client's."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.pictures.decoding import in_thread, open_picture, to_eight_bits


async def invert_mask(data: bytes, *, param: str = "mask") -> bytes:
    """White for black and black for white, as a PNG in greys. Raises InvalidRequest for what is no picture."""
    try:
        return await in_thread(_invert, data)
    except BadPicture as error:
        raise InvalidRequest("The mask must be a PNG, JPEG, WebP or GIF.", param=param, log=error.log) from error


async def mask_in_polarity(data: bytes, *, black_repaints: bool, param: str = "mask") -> bytes:
    """A client's mask as one of black and white, in the polarity that a model wants.

    OpenAI's kind is transparent where the picture shall be repainted; one without transparency is white there. Raises
    InvalidRequest for what is no picture.
    """
    try:
        mask = await in_thread(_of_alpha, data, black_repaints)
    except BadPicture as error:
        raise InvalidRequest("The mask must be a PNG or WebP.", param=param, log=error.log) from error
    if mask is not None:
        return mask
    return await invert_mask(data, param=param) if black_repaints else data


def _invert(data: bytes) -> bytes:
    with open_picture(data) as mask:
        return _png(ImageOps.invert(_flattened(mask)))


def _flattened(mask: Image.Image) -> Image.Image:
    """In greys; what is transparent counts as black."""
    if not mask.has_transparency_data:
        return to_eight_bits(mask).convert("L")
    coloured = mask.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", mask.size, "black"), coloured).convert("L")


def _of_alpha(data: bytes, black_repaints: bool) -> bytes | None:
    with open_picture(data) as mask:
        if not mask.has_transparency_data:
            return None
        alpha = mask.convert("RGBA").getchannel("A")
        return _png(alpha if black_repaints else ImageOps.invert(alpha))


def _png(picture: Image.Image) -> bytes:
    output = io.BytesIO()
    picture.save(output, "PNG")
    return output.getvalue()
