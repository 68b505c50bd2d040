"""Decodes untrusted bytes to verify that they are pictures.

Everything is decoded in full, since a header proves nothing, and in separate threads: at most ``WORKERS`` pictures at
a time, which bounds memory. Only the decoders of the four formats are ever tried.
"""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

from PIL import Image, ImageSequence

from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.translate.pictures.formats import PictureFormat, sniff, strip_text

WORKERS = 2
MAX_PIXELS = 8192 * 8192
"""Four times the side of a 2048 × 2048 picture, which is what upscalers make."""

MAX_INPUT_PIXELS = 25_000_000
"""Of a client's picture: more than models take in, and than most cameras make."""

ANIMATION_FACTOR = 4
"""How many times as many pixels all frames of an animation may have together."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

_P = ParamSpec("_P")
_R = TypeVar("_R")

_threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures")

# Pillow only warns of headers that announce more pixels than most machines can hold.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Dimensions(NamedTuple):
    width: int
    height: int


async def in_thread(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Runs work on pictures beside the event loop. Raises BadPicture for whatever Pillow raises."""
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: _guarded(work, *args, **kwargs))


def _guarded(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    try:
        return work(*args, **kwargs)
    except BadPicture:
        raise
    except Exception as exc:
        raise BadPicture(
            "The picture is damaged, cut off, or too large.", started=True, log=f"{type(exc).__name__}: {exc}"
        ) from exc


def identify(data: bytes) -> PictureFormat:
    """The format by its first bytes. Raises BadPicture."""
    found = sniff(data)
    if found is None:
        raise BadPicture(
            "What the model made is no PNG, JPEG, WebP or GIF.", started=True, log=f"It begins with {data[:16]!r}."
        )
    return found


def open_picture(data: bytes, limit: int = MAX_PIXELS) -> Image.Image:
    """The picture, its pixels not decoded yet and its size known to be bearable. Raises what Pillow raises."""
    identify(data)
    picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    if picture.width * picture.height > limit:
        raise BadPicture(
            f"The picture is too large: {picture.width} × {picture.height} are more than {limit} pixels.",
            started=True,
        )
    return picture


def to_eight_bits(picture: Image.Image) -> Image.Image:
    """Greys of 16 bits scaled down, where Pillow would cut them off at 255; any other picture as it is."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return picture.point(lambda value: value * (1 / 257)).convert("L")


def decode_all(data: bytes, limit: int = MAX_PIXELS) -> Dimensions:
    """Decodes every frame, and returns how large the picture is. Raises what Pillow raises.

    ``limit`` is the largest picture in pixels.
    """
    with open_picture(data, limit) as picture:
        pixels = 0
        for frame in ImageSequence.Iterator(picture):
            frame.load()
            pixels += frame.width * frame.height
            if pixels > ANIMATION_FACTOR * limit:
                raise BadPicture("The animation is too long for its size.", started=True)
        return Dimensions(picture.width, picture.height)


async def verify_input_picture(data: bytes, param: str) -> None:
    """Raises InvalidRequest with ``param`` for a client's picture that cannot be decoded, or is too large for that."""
    try:
        await in_thread(_decode_input, data)
    except BadPicture as error:
        raise InvalidRequest(
            f"{param} must be a whole PNG, JPEG, WebP or GIF picture of at most {MAX_INPUT_PIXELS} pixels.",
            param=param,
        ) from error


def _decode_input(data: bytes) -> Dimensions:
    """Without its texts, which a decoder would read for as long as they are."""
    return decode_all(strip_text(data), MAX_INPUT_PIXELS)
