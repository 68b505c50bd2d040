"""OpenAI's ``size`` as what a model has for it: width and height, an aspect ratio, or an enum of sizes."""

from __future__ import annotations

import math
import re
from typing import Any

from openai_dify_proxy.translate.model_schema import ModelInput, ModelInputs

_SIZE = re.compile(r"(\d{1,5})\s*[xX*]\s*(\d{1,5})")
_RATIO = re.compile(r"(\d{1,3}(?:\.\d+)?):(\d{1,3}(?:\.\d+)?)")
_MULTIPLE = re.compile(r"multiples? of (\d+)", re.IGNORECASE)

DEFAULT_MULTIPLE = 8
MOST_PIXELS = 99_999


def place_size(size: str, model: ModelInputs) -> dict[str, Any] | None:
    """The inputs that say ``size`` (``WxH`` or ``auto``); nothing for auto, None if the model cannot be told."""
    if size == "auto":
        return {}
    parsed = _SIZE.fullmatch(size.strip())
    if parsed is None or not int(parsed[1]) or not int(parsed[2]):
        return None
    width, height = int(parsed[1]), int(parsed[2])
    return _as_edges(width, height, model) or _as_ratio(width, height, model) or _as_enum(width, height, model)


def _as_edges(width: int, height: int, model: ModelInputs) -> dict[str, Any] | None:
    """Width and height; models that have an aspect ratio too heed them only when that is ``custom``."""
    wide = model.first(("width", "image_width"))
    high = model.first(("height", "image_height"))
    if wide is None or high is None:
        return None
    edges: dict[str, Any] = {wide.name: _edge(width, wide), high.name: _edge(height, high)}
    if None in edges.values():
        return None
    ratio = model.fields.get("aspect_ratio")
    if ratio is not None:
        if "custom" not in ratio.options:
            return None
        edges["aspect_ratio"] = "custom"
    return edges


def _edge(pixels: int, field: ModelInput) -> int | None:
    """The nearest that the model takes; None if it takes no numbers."""
    if field.options:
        numbers = [option for option in field.options if isinstance(option, int)]
        return min(numbers, key=lambda option: abs(option - pixels), default=None)
    low = max(1, math.ceil(field.minimum or 1))
    high = MOST_PIXELS if field.maximum is None else math.floor(field.maximum)
    if field.kind not in ("integer", "number") or low > high:
        return None
    said = _MULTIPLE.search(field.description)
    step = int(said[1]) if said and int(said[1]) else DEFAULT_MULTIPLE
    first, last = math.ceil(low / step) * step, high // step * step
    if first > last:
        return max(low, min(high, pixels))
    return max(first, min(last, round(pixels / step) * step))


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
