"""The headers that tune an image: which there are, and what the specification lets them hold.

A value is checked here against the specification's range, whatever the model; ``mapping`` checks it against the
model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest

SCHEDULERS = ("DDIM", "DPMSolverMultistep", "K_EULER", "K_EULER_ANCESTRAL", "PNDM")
OUTPUT_FORMATS = ("jpg", "png", "webp")


class ImageHeader(Struct, frozen=True):
    """``parameter`` is the specification's name of what the header ``name`` sets.

    ``minimum`` and ``maximum`` are those of a header that takes numbers.
    """

    name: str
    parameter: str
    parse: Callable[[str], Any]
    takes: str
    minimum: float | None = None
    maximum: float | None = None


def _choice(*options: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for option in options:
            if text.lower() == option.lower():
                return option
        raise ValueError

    return parse


def _integer(name: str, parameter: str, low: int, high: int | None = None) -> ImageHeader:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise ValueError
        value = int(text)
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


def _yes_no(text: str) -> bool:
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
    """Header values reach us as Latin-1; a client that writes UTF-8 means UTF-8."""
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
    ImageHeader("X-Output-Format", "output_format", _choice(*OUTPUT_FORMATS), "one of jpg, png, webp"),
    _integer("X-Output-Quality", "output_quality", 0, 100),
    ImageHeader("X-Replicate-Scheduler", "scheduler", _choice(*SCHEDULERS), f"one of {', '.join(SCHEDULERS)}"),
    _integer("X-Replicate-Num-Inference-Steps", "num_inference_steps", 1, 500),
    _number("X-Replicate-Guidance-Scale", "guidance_scale", 1, 20),
    _integer("X-Replicate-Seed", "seed", 0),
    ImageHeader("X-Replicate-Negative-Prompt", "negative_prompt", _text, "a text"),
    _number("X-Replicate-Prompt-Strength", "prompt_strength", 0, 1),
    _integer("X-Replicate-Num-Outputs", "num_outputs", 1, 4),
    ImageHeader("X-Replicate-Safety-Checker", "safety_checker", _yes_no, "yes or no"),
    ImageHeader("X-Replicate-Enhance-Prompt", "enhance_prompt", _yes_no, "yes or no"),
    ImageHeader("X-Replicate-Upscale", "upscale", _yes_no, "yes or no"),
    ImageHeader("X-Replicate-Upscale-Factor", "upscale_factor", _factor, "2 or 4"),
    ImageHeader("X-Replicate-Style-Preset", "style_preset", _text, "a text such as anime or photographic"),
    ImageHeader("X-Replicate-Init-Image", "init_image", _url, "an http or https URL"),
    ImageHeader("X-Replicate-Mask", "mask", _url, "an http or https URL"),
)

HEADER_OF = {header.parameter: header.name for header in HEADERS}


def read_image_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """The values by parameter name. Raises InvalidRequest whose ``param`` is the header."""
    values = {}
    for header in HEADERS:
        text = headers.get(header.name)
        if text is None:
            continue
        try:
            values[header.parameter] = header.parse(text.strip())
        except ValueError:
            raise InvalidRequest(f"{header.name} must be {header.takes}.", param=header.name) from None
    return values
