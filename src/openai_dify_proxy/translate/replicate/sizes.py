"""Maps OpenAI's ``size`` to the inputs of a model: width and height, an aspect ratio, or a list of sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs

_SIZE = re.compile(r"(\d{1,5})\s*[xX*]\s*(\d{1,5})", re.ASCII)
_RATIO = re.compile(r"(\d{1,3}(?:\.\d+)?):(\d{1,3}(?:\.\d+)?)", re.ASCII)
_MULTIPLE = re.compile(r"multiples? of (\d+)", re.IGNORECASE | re.ASCII)

DEFAULT_MULTIPLE = 8
MAX_EDGE = 99_999
RATIO_TOLERANCE = 0.02
"""The largest difference between the logarithms of two aspect ratios that count as equal.

Models round sizes: flux-schnell makes 1344x768 for 16:9, a difference of 0.016.
"""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


class PlacedSize(Struct, frozen=True):
    """The inputs for a size; ``altered`` if the model makes another size, or another aspect ratio."""

    inputs: dict[str, Any]
    altered: bool = False


def parse_size(text: str) -> Size | None:
    """Parse ``WxH``; None means ``auto``. Raises InvalidRequest."""
    if text == "auto":
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or not int(match[1]) or not int(match[2]):
        raise InvalidRequest(
            f'Invalid size \'{text[:50]}\'. Send "auto" or WIDTHxHEIGHT in pixels, such as "1024x1024".', param="size"
        )
    return Size(int(match[1]), int(match[2]))


def place_size(size: Size, model: ModelInputs) -> PlacedSize | None:
    """Return the inputs that come nearest to ``size``; None if the model has no input for sizes."""
    return _as_edges(size, model) or _as_ratio(size, model) or _as_option(size, model)


def _as_edges(size: Size, model: ModelInputs) -> PlacedSize | None:
    """Set width and height. Models with an aspect ratio use them only where it may be ``custom``."""
    wide = model.first(("width", "image_width"))
    high = model.first(("height", "image_height"))
    ratio = model.fields.get("aspect_ratio")
    if wide is None or high is None or (ratio is not None and "custom" not in ratio.options):
        return None
    widths, heights = _edges(wide), _edges(high)
    if not widths or not heights:
        return None
    factor = _factor((size.width, widths), (size.height, heights))
    inputs: dict[str, Any] = {
        wide.name: _nearest(widths, size.width * factor),
        high.name: _nearest(heights, size.height * factor),
    }
    altered = tuple(inputs.values()) != size
    return PlacedSize(inputs if ratio is None else {**inputs, "aspect_ratio": "custom"}, altered)


def _factor(*edges: tuple[int, Sequence[int]]) -> float:
    """Return the factor that brings all edges into the model's range and preserves the shape; 1 if they are in it."""
    shrink = min(min(1, known[-1] / pixels) for pixels, known in edges)
    return shrink if shrink < 1 else max(max(1, known[0] / pixels) for pixels, known in edges)


def _nearest(known: Sequence[int], pixels: float) -> int:
    if isinstance(known, range):
        return known[max(0, min(len(known) - 1, round(pixels / known.step) - known[0] // known.step))]
    return min(known, key=lambda option: abs(option - pixels))


def _edges(field: ModelInput) -> Sequence[int]:
    """Return the lengths that the model accepts, in ascending order; empty if the input is not numeric."""
    if field.options:
        return sorted(option for option in field.options if type(option) is int and option > 0)
    low = max(1, 1 if field.lowest is None else field.lowest)
    high = MAX_EDGE if field.highest is None else field.highest
    if field.kind not in ("integer", "number"):
        return ()
    match = _MULTIPLE.search(field.description)
    step = int(match[1]) if match and int(match[1]) else DEFAULT_MULTIPLE
    if field.multiple_of is not None and float(field.multiple_of).is_integer():
        step = int(field.multiple_of)
    in_steps = range(math.ceil(low / step) * step, high + 1, step)
    return in_steps or range(low, high + 1)


def _as_ratio(size: Size, model: ModelInputs) -> PlacedSize | None:
    field = model.fields.get("aspect_ratio")
    if field is None:
        return None
    wanted = size.width / size.height
    known = [
        (_distance(ratio, wanted), option) for option in field.options if (ratio := _ratio(str(option))) is not None
    ]
    if not known:
        return None
    distance, option = min(known, key=lambda item: item[0])
    return PlacedSize({"aspect_ratio": option}, altered=distance > RATIO_TOLERANCE)


def _as_option(size: Size, model: ModelInputs) -> PlacedSize | None:
    """Choose from a list of sizes: the same size, else the nearest in shape, and of those the nearest in area."""
    field = model.first(("size", "resolution", "image_size"))
    if field is None:
        return None
    wanted = size.width / size.height
    known = []
    for option in field.options:
        match = _SIZE.fullmatch(str(option))
        wide, high = (int(match[1]), int(match[2])) if match else (0, 0)
        if wide and high:
            area = abs(wide * high - size.width * size.height)
            known.append((_distance(wide / high, wanted), area, (wide, high) != size, option))
    if not known:
        return None
    _, _, altered, option = min(known, key=lambda item: item[:2])
    return PlacedSize({field.name: option}, altered)


def _ratio(text: str) -> float | None:
    match = _RATIO.fullmatch(text.strip())
    return float(match[1]) / float(match[2]) if match and float(match[1]) and float(match[2]) else None


def _distance(ratio: float, wanted: float) -> float:
    return abs(math.log(ratio / wanted))
