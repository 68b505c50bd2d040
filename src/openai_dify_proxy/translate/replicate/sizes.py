"""OpenAI's ``size`` as what a model has for it: width and height, an aspect ratio, or an enum of sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs

_SIZE = re.compile(r"(\d{1,5})\s*[xX*]\s*(\d{1,5})")
_RATIO = re.compile(r"(\d{1,3}(?:\.\d+)?):(\d{1,3}(?:\.\d+)?)")
_MULTIPLE = re.compile(r"multiples? of (\d+)", re.IGNORECASE)

DEFAULT_MULTIPLE = 8
MOST_PIXELS = 99_999


class PlacedSize(Struct, frozen=True):
    """The inputs that say a size; ``altered`` if they say other edges than were asked for."""

    inputs: dict[str, Any]
    altered: bool = False


def place_size(size: str, model: ModelInputs) -> PlacedSize | None:
    """What says ``size`` (``WxH`` or ``auto``); nothing for auto, None if the model cannot be told."""
    if size == "auto":
        return PlacedSize({})
    parsed = _SIZE.fullmatch(size.strip())
    if parsed is None or not int(parsed[1]) or not int(parsed[2]):
        return None
    width, height = int(parsed[1]), int(parsed[2])
    edges = _as_edges(width, height, model)
    if edges is not None:
        return edges
    inputs = _as_ratio(width, height, model) or _as_enum(width, height, model)
    return None if inputs is None else PlacedSize(inputs)


def _as_edges(width: int, height: int, model: ModelInputs) -> PlacedSize | None:
    """Width and height; models that have an aspect ratio too heed them only when that is ``custom``."""
    wide = model.first(("width", "image_width"))
    high = model.first(("height", "image_height"))
    ratio = model.fields.get("aspect_ratio")
    if wide is None or high is None or (ratio is not None and "custom" not in ratio.options):
        return None
    widths, heights = _edges(wide), _edges(high)
    if not widths or not heights:
        return None
    factor = _factor((width, widths), (height, heights))
    inputs: dict[str, Any] = {
        wide.name: _nearest(widths, width * factor),
        high.name: _nearest(heights, height * factor),
    }
    altered = tuple(inputs.values()) != (width, height)
    return PlacedSize(inputs if ratio is None else {**inputs, "aspect_ratio": "custom"}, altered)


def _factor(*edges: tuple[int, Sequence[int]]) -> float:
    """By what all edges together come into what the model takes, so that the shape stays; 1 if they are in it."""
    shrink = min(min(1, known[-1] / pixels) for pixels, known in edges)
    return shrink if shrink < 1 else max(max(1, known[0] / pixels) for pixels, known in edges)


def _nearest(known: Sequence[int], pixels: float) -> int:
    if isinstance(known, range):
        return known[max(0, min(len(known) - 1, round(pixels / known.step) - known[0] // known.step))]
    return min(known, key=lambda option: abs(option - pixels))


def _edges(field: ModelInput) -> Sequence[int]:
    """The lengths that the model takes, in their order; none if it takes no numbers."""
    if field.options:
        return sorted(option for option in field.options if type(option) is int and option > 0)
    low = max(1, 1 if field.lowest is None else field.lowest)
    high = MOST_PIXELS if field.highest is None else field.highest
    if field.kind not in ("integer", "number"):
        return ()
    said = _MULTIPLE.search(field.description)
    step = int(said[1]) if said and int(said[1]) else DEFAULT_MULTIPLE
    if field.multiple_of is not None and float(field.multiple_of).is_integer():
        step = int(field.multiple_of)
    in_steps = range(math.ceil(low / step) * step, high + 1, step)
    return in_steps or range(low, high + 1)


def _as_ratio(width: int, height: int, model: ModelInputs) -> dict[str, Any] | None:
    field = model.fields.get("aspect_ratio")
    if field is None:
        return None
    known = [(ratio, option) for option in field.options if (ratio := _ratio(str(option))) is not None]
    if not known:
        return None
    return {"aspect_ratio": min(known, key=lambda item: _distance(item[0], width / height))[1]}


def _as_enum(width: int, height: int, model: ModelInputs) -> dict[str, Any] | None:
    """An enum whose members are sizes: the same one, else the nearest in shape, and of those the nearest in area."""
    field = model.first(("size", "resolution", "image_size"))
    if field is None:
        return None
    known = []
    for option in field.options:
        parsed = _SIZE.fullmatch(str(option))
        wide, high = (int(parsed[1]), int(parsed[2])) if parsed else (0, 0)
        if wide and high:
            known.append((_distance(wide / high, width / height), abs(wide * high - width * height), option))
    return {field.name: min(known, key=lambda item: item[:2])[2]} if known else None


def _ratio(text: str) -> float | None:
    parsed = _RATIO.fullmatch(text.strip())
    return float(parsed[1]) / float(parsed[2]) if parsed and float(parsed[1]) and float(parsed[2]) else None


def _distance(ratio: float, wanted: float) -> float:
    return abs(math.log(ratio / wanted))
