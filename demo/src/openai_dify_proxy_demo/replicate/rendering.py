"""Rendering of a model's inputs to a picture: size, initial image, mask and format."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, PngImagePlugin

from openai_dify_proxy_demo.replicate.captions import caption_strip
from openai_dify_proxy_demo.replicate.models import DemoModel
from openai_dify_proxy_demo.replicate.painting import paint

SOURCE_INPUTS = ("init_image", "image", "input_image", "img", "image_input", "input_images")
"""The names of the inputs for initial pictures."""

MAX_PIXELS = 64_000_000
"""The size above which models run out of memory."""

MAX_SIDE = 2048
"""The maximum width and height; larger pictures are scaled down."""

IMAGE_DESCRIPTION = 0x010E
"""The EXIF tag for the prompt."""

Size = tuple[int, int]

_FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
_EDGES = {"1K": 1024, "2K": 2048, "4K": 4096, "0.25": 512}
_SIDES = {
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "3:2": (1216, 832),
    "5:4": (1088, 896),
    "4:3": (1152, 896),
}
"""The sizes of Flux for one megapixel, by aspect ratio."""


class PredictionFailedError(Exception):
    """Raised when the model fails; the message becomes the prediction's error."""


@dataclass(frozen=True)
class Sources:
    """The initial picture and the mask of a prediction, as file contents."""

    first: bytes | None = None
    mask: bytes | None = None


@dataclass(frozen=True)
class Rendered:
    """One rendered picture file."""

    data: bytes
    media_type: str
    extension: str


def with_defaults(model: DemoModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs, completed with the model's defaults."""
    defaults = {param.name: param.default for param in model.params}
    return defaults | {name: value for name, value in inputs.items() if value is not None}


def source_uris(inputs: Mapping[str, Any]) -> list[str]:
    """Return the URIs of the initial pictures."""
    values = [inputs.get(name) or [] for name in SOURCE_INPUTS]
    return [uri for value in values for uri in ([value] if isinstance(value, str) else value)]


def picture_count(inputs: Mapping[str, Any]) -> int:
    """Return the number of requested pictures."""
    if "sequential_image_generation" in inputs:
        return int(inputs["max_images"]) if inputs["sequential_image_generation"] == "auto" else 1
    return int(inputs.get("num_outputs") or inputs.get("number_of_images") or 1)


def enhanced_prompt(inputs: Mapping[str, Any]) -> str:
    """Return the prompt, extended if the inputs allow the model to enhance it."""
    prompt = str(inputs.get("prompt", ""))
    enhance = inputs.get("prompt_upsampling") is True or inputs.get("magic_prompt_option") == "On"
    return f"{prompt}, in loving detail" if enhance else prompt


def render(
    model: DemoModel,
    inputs: Mapping[str, Any],
    sources: Sources,
    seed: int,
    *,
    metadata: bool = False,
    transparent: bool = False,
    mislabelled: bool = False,
) -> Rendered:
    """Render one picture. Raise PredictionFailedError if the model would fail on these inputs."""
    source = _decode(sources.first) if sources.first is not None else None
    _check_combination(inputs, sources)
    size = output_size(inputs, source.size if source else None)
    if not 1 <= size[0] * size[1] <= MAX_PIXELS or min(size) < 1:
        raise PredictionFailedError("CUDA out of memory. Tried to allocate 20.00 GiB (GPU 0; 39.59 GiB total capacity)")
    size = fit_size(size)
    if source and "scale" in inputs:
        picture = source.resize(size, Image.Resampling.LANCZOS)
    else:
        picture = paint(enhanced_prompt(inputs), seed, size, f"{model.name} · seed {seed}")
        picture = _blend(picture, source, sources.mask, inputs, repaints_black=model.repaints == "black")
    if transparent or inputs.get("background") == "transparent":
        picture.putalpha(Image.linear_gradient("L").resize(size))
    extension = str(inputs.get("output_format") or "png")
    metadata_text = (
        json.dumps({"text": inputs.get("prompt", ""), "seed": seed}) if metadata or model.embeds_prompt else None
    )
    actual = extension if not mislabelled else "jpg" if extension == "png" else "png"
    quality = inputs.get("output_quality", inputs.get("output_compression"))
    data = _encode(picture, _FORMATS[actual], 80 if quality is None else int(quality), metadata_text)
    return Rendered(data, Image.MIME[_FORMATS[extension]], extension)


def output_size(inputs: Mapping[str, Any], source: Size | None) -> Size:
    """Return the size that the model would produce for these inputs."""
    if source and "scale" in inputs:
        return math.floor(source[0] * inputs["scale"]), math.floor(source[1] * inputs["scale"])
    if "resolution" in inputs:
        return _resolution(inputs, source)
    ratio = inputs.get("aspect_ratio")
    if ratio is None:
        return source if source and "image" in inputs else (inputs["width"], inputs["height"])
    if "custom" in (ratio, inputs.get("size")):
        return _multiple(inputs.get("width") or 1024), _multiple(inputs.get("height") or 1024)
    edge = _EDGES.get(inputs.get("size") or inputs.get("image_size") or inputs.get("megapixels") or "1K", 1024)
    if source and (ratio == "match_input_image" or "image" in inputs):
        return _by_ratio(source[0] / source[1], edge)
    return _by_name("1:1" if ratio == "match_input_image" else ratio, edge)


def fit_size(size: Size) -> Size:
    """Scale a larger size down to MAX_SIDE with the same proportions."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resolution(inputs: Mapping[str, Any], source: Size | None) -> Size:
    if source:
        return source
    width, found, height = inputs["resolution"].partition("x")
    return (int(width), int(height)) if found else _by_name(inputs["aspect_ratio"], 1024)


def _by_name(ratio: str, edge: int) -> Size:
    across, _, down = ratio.partition(":")
    if ratio in _SIDES:
        width, height = _SIDES[ratio]
    elif f"{down}:{across}" in _SIDES:
        height, width = _SIDES[f"{down}:{across}"]
    else:
        return _by_ratio(int(across) / int(down), edge)
    return width * edge // 1024, height * edge // 1024


def _by_ratio(ratio: float, edge: int) -> Size:
    return _multiple(edge * math.sqrt(ratio)), _multiple(edge / math.sqrt(ratio))


def _multiple(side: float) -> int:
    return max(32, round(side / 32) * 32)


def _check_combination(inputs: Mapping[str, Any], sources: Sources) -> None:
    if "init_image" in inputs:
        if sources.mask is not None and sources.first is None:
            raise PredictionFailedError("mask was provided without init_image")
        if inputs["width"] * inputs["height"] > 1024 * 768:
            raise PredictionFailedError(
                "Maximum size is 1024x768 or 768x1024 pixels, because of memory limits. "
                "Please select a lower width or height."
            )
    elif "magic_prompt_option" in inputs:
        if (sources.mask is None) != (sources.first is None):
            raise PredictionFailedError("Both image and mask are needed for inpainting")
    elif "scheduler" in inputs and (inputs["width"] % 8 or inputs["height"] % 8):
        raise PredictionFailedError(
            f"`height` and `width` have to be divisible by 8 but are {inputs['height']} and {inputs['width']}."
        )


def _blend(
    painted: Image.Image,
    source: Image.Image | None,
    mask: bytes | None,
    inputs: Mapping[str, Any],
    *,
    repaints_black: bool,
) -> Image.Image:
    """Blend the source with the painted picture, everywhere or where the mask allows.

    The caption strip is not blended, so it covers the caption of a source that the demo painted.
    """
    if source is None:
        return painted
    source = source.resize(painted.size)
    strength = float(inputs.get("prompt_strength", 0.5 if mask is None else 1.0))
    mixed = Image.blend(source, painted, min(1.0, max(0.0, strength)))
    if strength > 0:
        strip = caption_strip(painted.size)
        mixed.paste(painted.crop(strip), strip)
    if mask is None:
        return mixed
    repainted = _decode(mask).convert("L").resize(painted.size)
    return Image.composite(mixed, source, ImageChops.invert(repainted) if repaints_black else repainted)


def _decode(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictionFailedError("cannot identify image file '/tmp/tmpinput'") from error


def encode_png(picture: Image.Image) -> bytes:
    """Encode a PNG without text chunks."""
    return _encode(picture, "PNG", 100, None)


def _encode(picture: Image.Image, kind: str, quality: int, metadata_text: str | None) -> bytes:
    buffer = io.BytesIO()
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        if metadata_text:
            texts.add_text("prompt", metadata_text)
            texts.add_text("workflow", json.dumps({"nodes": [{"type": "CLIPTextEncode", "inputs": metadata_text}]}))
        picture.save(buffer, kind, pnginfo=texts, compress_level=3)
        return buffer.getvalue()
    exif = Image.Exif()
    if metadata_text:
        exif[IMAGE_DESCRIPTION] = metadata_text
    picture = picture.convert("RGB") if kind == "JPEG" else picture
    picture.save(buffer, kind, quality=quality, exif=exif, **({"method": 2} if kind == "WEBP" else {}))
    return buffer.getvalue()
