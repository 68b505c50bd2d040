"""The request headers for images, and the values that each accepts.

Values are checked here against the ranges of the specification, and in ``mapping`` against those of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.model_schema import INT64

SCHEDULERS = ("DDIM", "DPMSolverMultistep", "K_EULER", "K_EULER_ANCESTRAL", "PNDM")
OUTPUT_FORMATS = ("jpg", "png", "webp")
YES_NO = ("yes", "no")
PREFIXES = ("x-replicate-", "x-output-")
"""The prefixes of image headers, in lower case. Other headers with these prefixes are mistakes of the client."""

MAX_NAME_LENGTH = 80


class ImageHeader(Struct, frozen=True):
    """A header: ``parameter`` is its name in the specification, ``takes`` describes the accepted values.

    ``parse`` raises ValueError for other values. ``minimum`` and ``maximum`` bound a numeric header, and ``options``
    are the values of a header that has a list.
    """

    name: str
    parameter: str
    parse: Callable[[str], Any]
    takes: str
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[str, ...] = ()


class ImageHeaders(Struct, frozen=True):
    """The image headers of a request: ``values`` by parameter, and the names of ``unknown`` headers."""

    values: dict[str, Any]
    unknown: tuple[str, ...] = ()


class _TooLargeError(ValueError):
    """An integer of more than 64 bits."""


def _choice(*options: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for option in options:
            if text.lower() == option.lower():
                return option
        raise ValueError

    return parse


def _format(text: str) -> str:
    """Accept ``jpeg`` as well, which is the name in OpenAI's API."""
    return "jpg" if text.lower() == "jpeg" else _choice(*OUTPUT_FORMATS)(text)


def _integer(name: str, parameter: str, low: int, high: int | None = None) -> ImageHeader:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise ValueError
        # 20 digits exceed 64 bits; further ones are ignored, since int() is slow for long texts.
        value = int(text.lstrip("0")[:20] or "0")
        if high is None and value > INT64[-1]:
            raise _TooLargeError
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    takes = f"an integer from {low} up" if high is None else f"an integer from {low} to {high}"
    return ImageHeader(name, parameter, parse, takes, low, high)


def _number(name: str, parameter: str, low: float, high: float) -> ImageHeader:
    def parse(text: str) -> float:
        if not text.isascii() or "_" in text or len(text) > 40:
            raise ValueError
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return ImageHeader(name, parameter, parse, f"a number from {low:g} to {high:g}", low, high)


def _boolean(text: str) -> bool:
    if text.lower() in ("yes", "true", "1"):
        return True
    if text.lower() in ("no", "false", "0"):
        return False
    raise ValueError


def _factor(text: str) -> int:
    if text not in ("2", "4"):
        raise ValueError
    return int(text)


def _text(text: str) -> str:
    """Decode UTF-8 where it is valid: servers decode header values as Latin-1, but most clients send UTF-8."""
    if not text:
        raise ValueError
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError
    return text


HEADERS = (
    ImageHeader(
        "X-Output-Format", "output_format", _format, f"one of {', '.join(OUTPUT_FORMATS)}", options=OUTPUT_FORMATS
    ),
    _integer("X-Output-Quality", "output_quality", 0, 100),
    ImageHeader(
        "X-Replicate-Scheduler",
        "scheduler",
        _choice(*SCHEDULERS),
        f"one of {', '.join(SCHEDULERS)}",
        options=SCHEDULERS,
    ),
    _integer("X-Replicate-Num-Inference-Steps", "num_inference_steps", 1, 500),
    _number("X-Replicate-Guidance-Scale", "guidance_scale", 1, 20),
    _integer("X-Replicate-Seed", "seed", 0),
    ImageHeader("X-Replicate-Negative-Prompt", "negative_prompt", _text, "text"),
    _number("X-Replicate-Prompt-Strength", "prompt_strength", 0, 1),
    _integer("X-Replicate-Num-Outputs", "num_outputs", 1, 4),
    ImageHeader("X-Replicate-Safety-Checker", "safety_checker", _boolean, "yes or no", options=YES_NO),
    ImageHeader("X-Replicate-Enhance-Prompt", "enhance_prompt", _boolean, "yes or no", options=YES_NO),
    ImageHeader("X-Replicate-Upscale", "upscale", _boolean, "yes or no", options=YES_NO),
    ImageHeader("X-Replicate-Upscale-Factor", "upscale_factor", _factor, "2 or 4", options=("2", "4")),
    ImageHeader("X-Replicate-Style-Preset", "style_preset", _text, "text, such as anime or photographic"),
    ImageHeader("X-Replicate-Init-Image", "init_image", _url, "an http or https URL"),
    ImageHeader("X-Replicate-Mask", "mask", _url, "an http or https URL"),
)

HEADER_OF = {header.parameter: header.name for header in HEADERS}
_BY_NAME = {header.name.lower(): header for header in HEADERS}


def read_image_headers(items: Iterable[tuple[str, str]]) -> ImageHeaders:
    """Parse the image headers among all headers of a request; a name may occur several times.

    Raises InvalidRequest, with the header as ``param``, for an invalid value and for different values.
    """
    values: dict[str, Any] = {}
    unknown: dict[str, None] = {}
    for name, text in items:
        name = name.lower()
        header = _BY_NAME.get(name)
        if header is not None:
            value = _parse(header, text)
            if values.setdefault(header.parameter, value) != value:
                raise InvalidRequest(
                    f"The header '{header.name}' is sent twice, with different values. Send it once.",
                    param=header.name,
                )
        elif name.startswith(PREFIXES):
            unknown[_canonical(name)] = None
    return ImageHeaders(values, tuple(unknown))


def _parse(header: ImageHeader, text: str) -> Any:
    try:
        return header.parse(text.strip())
    except _TooLargeError:
        message = f"{header.name} is too large. The limit is {INT64[-1]}."
    except ValueError:
        message = f"{header.name} must be {header.takes}."
    raise InvalidRequest(message, param=header.name)


def _canonical(name: str) -> str:
    """Return the usual capitalization of a header's name, which servers pass on in lower case."""
    return "-".join(part.capitalize() for part in name[:MAX_NAME_LENGTH].split("-"))
