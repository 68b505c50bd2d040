"""Decodes untrusted bytes to verify that they are pictures.

Pictures are decoded in full, since a valid header proves nothing, and in threads: at most ``WORKERS`` pictures at a
time, which bounds memory. Only the decoders of the four formats are enabled.
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
"""A 2048 × 2048 picture after fourfold upscaling."""

MAX_INPUT_PIXELS = 25_000_000
"""The limit for pictures of clients: more than models accept, and than most cameras produce."""

ANIMATION_FACTOR = 4
"""The limit for all frames of an animation together, as a multiple of the limit for one picture."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

_P = ParamSpec("_P")
_R = TypeVar("_R")

_threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures")

# Pillow only warns about pictures between one and two times its own limit.
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Dimensions(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


async def in_thread(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Run ``work`` in a thread. Raises BadPicture for every exception of Pillow."""
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: _guarded(work, *args, **kwargs))


def _guarded(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    try:
        return work(*args, **kwargs)
    except BadPicture:
        raise
    except Exception as exc:
        raise BadPicture(
            "The picture is damaged, truncated or too large.", started=True, log=f"{type(exc).__name__}: {exc}"
        ) from exc


def identify(data: bytes) -> PictureFormat:
    """Return the format by the first bytes. Raises BadPicture."""
    found = sniff(data)
    if found is None:
        raise BadPicture(
            "The model returned a file that is not a PNG, JPEG, WebP or GIF picture.",
            started=True,
            log=f"The file begins with {data[:16]!r}.",
        )
    return found


def open_picture(data: bytes, limit: int = MAX_PIXELS) -> Image.Image:
    """Open a picture of at most ``limit`` pixels, without decoding them. Raises BadPicture, and Pillow's exceptions."""
    identify(data)
    picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    if picture.width * picture.height > limit:
        raise BadPicture(
            f"The picture is too large: {picture.width} × {picture.height}. The limit is {limit} pixels.",
            started=True,
        )
    return picture


def to_eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey levels to 8 bits; Pillow clips them at 255. Other pictures are returned unchanged."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return picture.point(lambda value: value * (1 / 257)).convert("L")


def decode_all(data: bytes, limit: int = MAX_PIXELS) -> Dimensions:
    """Decode every frame of a picture of at most ``limit`` pixels, and return its dimensions.

    Raises BadPicture, and Pillow's exceptions.
    """
    with open_picture(data, limit) as picture:
        pixels = 0
        for frame in ImageSequence.Iterator(picture):
            frame.load()
            pixels += frame.width * frame.height
            if pixels > ANIMATION_FACTOR * limit:
                raise BadPicture(
                    f"The animation is too large. The limit for all frames is {ANIMATION_FACTOR * limit} pixels.",
                    started=True,
                )
        return Dimensions(picture.width, picture.height)


def verify_decodable(data: bytes) -> None:
    """Decode a picture, without the metadata that decoders read without a limit. Raises as ``decode_all``."""
    decode_all(strip_text(data))


async def verify_input_picture(data: bytes, param: str) -> None:
    """Decode a client's picture. Raises InvalidRequest with ``param`` if it is damaged or too large."""
    try:
        await in_thread(_decode_input, data)
    except BadPicture as error:
        raise InvalidRequest(
            f"{param} is damaged or too large. Send a PNG, JPEG, WebP or GIF of at most {MAX_INPUT_PIXELS} pixels.",
            param=param,
        ) from error


def _decode_input(data: bytes) -> Dimensions:
    """Decode without metadata, which decoders read without a limit on its size."""
    return decode_all(strip_text(data), MAX_INPUT_PIXELS)
