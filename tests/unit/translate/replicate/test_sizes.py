"""Map OpenAI's sizes to models of all kinds."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate.sizes import PlacedSize, parse_size, place_size
from tests.unit.translate.replicate.replicate_models import MODELS, model_of

PLACED: list[tuple[str, str, dict[str, Any] | None]] = [
    # Width and height, rounded to sizes that the model supports.
    ("sdxl", "1024x1024", {"width": 1024, "height": 1024}),
    ("sdxl", "1792x1024", {"width": 1792, "height": 1024}),
    ("sdxl", "1000x700", {"width": 1000, "height": 704}),
    ("sdxl", " 512 X 512 ", {"width": 512, "height": 512}),
    ("sdxl", "3x3", {"width": 8, "height": 8}),
    ("sdxl", "2x6", {"width": 8, "height": 24}),
    # Both edges are scaled together if one is outside the model's range.
    ("flux-pro", "2880x1440", {"aspect_ratio": "custom", "width": 1440, "height": 704}),
    ("flux-pro", "128x256", {"aspect_ratio": "custom", "width": 256, "height": 512}),
    # An enum of edges.
    ("stable-diffusion", "256x256", {"width": 256, "height": 256}),
    ("stable-diffusion", "1536x400", {"width": 1024, "height": 256}),
    # The nearest aspect ratio.
    ("flux-schnell", "1024x1024", {"aspect_ratio": "1:1"}),
    ("flux-schnell", "1024x1536", {"aspect_ratio": "2:3"}),
    ("flux-schnell", "1536x1024", {"aspect_ratio": "3:2"}),
    ("flux-schnell", "1792x1024", {"aspect_ratio": "16:9"}),
    ("imagen-4-ultra", "1536x1024", {"aspect_ratio": "4:3"}),
    ("gpt-image-1", "1792x1024", {"aspect_ratio": "3:2"}),
    ("seedream-4.5", "1024x1792", {"aspect_ratio": "9:16"}),
    ("flux-kontext-pro", "1000x2000", {"aspect_ratio": "1:2"}),
    # An aspect ratio that enables width and height only with a certain value.
    ("flux-pro", "1024x768", {"aspect_ratio": "custom", "width": 1024, "height": 768}),
    ("flux-pro", "1792x100", {"aspect_ratio": "custom", "width": 1440, "height": 256}),
    # No input for sizes.
    ("realesrgan", "512x512", None),
]


def place(size: str, model: ModelInputs) -> PlacedSize | None:
    parsed = parse_size(size)
    assert parsed is not None
    return place_size(parsed, model)


def inputs_of(placed: PlacedSize | None) -> dict[str, Any] | None:
    return None if placed is None else placed.inputs


@pytest.mark.parametrize(("model", "size", "placed"), PLACED)
def test_sizes_with_real_models(model: str, size: str, placed: dict[str, Any] | None) -> None:
    assert inputs_of(place(size, MODELS[model])) == placed


INTEGER = {"type": "integer"}
RATIOS = {"enum": ["wide", "0:1", "1:0", "1:1", "2.39:1"]}

UNUSUAL: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any] | None]] = {
    "other names": ({"image_width": INTEGER, "image_height": INTEGER}, {"image_width": 1200, "image_height": 496}),
    "one edge only": ({"width": INTEGER}, None),
    "documented steps": (
        {
            "width": {**INTEGER, "description": "Must be a multiple of 64"},
            "height": {**INTEGER, "description": "multiples of 0"},
        },
        {"width": 1216, "height": 496},
    ),
    "a range without a multiple": (
        {"width": {**INTEGER, "minimum": 1001, "maximum": 1003}, "height": INTEGER},
        {"width": 1003, "height": 416},
    ),
    "steps of the schema": (
        {"width": {**INTEGER, "multipleOf": 100}, "height": {"type": "number", "multipleOf": 0.5}},
        {"width": 1200, "height": 496},
    ),
    "bounds that are no part of the range": (
        {"width": {"type": "number", "exclusiveMaximum": 1200}, "height": INTEGER},
        {"width": 1192, "height": 496},
    ),
    "a range that is none": ({"width": {**INTEGER, "minimum": 9, "maximum": 8}, "height": INTEGER}, None),
    "edges that are texts": ({"width": {"type": "string"}, "height": INTEGER}, None),
    "edges that are named": ({"width": {"enum": ["small", "large"]}, "height": INTEGER}, None),
    "an odd ratio": ({"aspect_ratio": RATIOS}, {"aspect_ratio": "2.39:1"}),
    "ratios that are none": ({"aspect_ratio": {"enum": ["wide", "tall"]}}, None),
    "a ratio without a list": ({"aspect_ratio": {"type": "string"}}, None),
    "edges beside a ratio, and no custom one": (
        {"width": INTEGER, "height": INTEGER, "aspect_ratio": RATIOS},
        {"aspect_ratio": "2.39:1"},
    ),
    "sizes in an enum": (
        {"size": {"enum": ["auto", "1024x1024", "1200x500", "600x250", "0x9"]}},
        {"size": "1200x500"},
    ),
    "the nearest shape, then the nearest area": (
        {"resolution": {"enum": ["240x100", "2400x1000", "1000x1000"]}},
        {"resolution": "240x100"},
    ),
    "sizes that are none": ({"image_size": {"enum": ["1K", "2K"]}}, None),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_sizes_with_unusual_models(case: str) -> None:
    properties, placed = UNUSUAL[case]
    assert inputs_of(place("1200x500", model_of(**properties))) == placed


def test_openais_sizes_with_ideogram() -> None:
    """The model has ratios and an enum of sizes; the ratio is used, since the enum lacks most of OpenAI's sizes."""
    assert inputs_of(place("1024x1024", MODELS["ideogram-v3-turbo"])) == {"aspect_ratio": "1:1"}
    assert inputs_of(place("1024x1792", MODELS["ideogram-v3-turbo"])) == {"aspect_ratio": "9:16"}


@pytest.mark.parametrize(
    ("model", "size", "altered"),
    [
        ("sdxl", "1024x1024", False),
        ("sdxl", "1000x700", True),
        ("flux-pro", "1441x1441", True),
        ("flux-pro", "1408x256", False),
        ("flux-schnell", "1024x1024", False),
        ("flux-schnell", "2048x2048", False),
        ("flux-schnell", "1360x768", False),
        ("flux-schnell", "1344x768", False),
        ("flux-schnell", "1792x1024", False),
        ("flux-schnell", "1000x700", True),
    ],
)
def test_altered_sizes(model: str, size: str, altered: bool) -> None:
    placed = place(size, MODELS[model])
    assert placed is not None
    assert placed.altered is altered


@pytest.mark.parametrize(("size", "altered"), [("1024x1024", False), ("1000x1000", True), ("1536x1024", True)])
def test_altered_sizes_from_a_list(size: str, altered: bool) -> None:
    placed = place(size, model_of(size={"enum": ["1024x1024", "1024x1536"]}))
    assert placed == PlacedSize({"size": "1024x1024"}, altered)


def test_auto_is_the_models_own_size() -> None:
    assert parse_size("auto") is None


@pytest.mark.parametrize(
    "size", ["", "huge", "1024", "0x512", "512x0", "512x", "-1x5", "123456x1", "1x1x1", "\u0665x5", "16:9"]
)
def test_invalid_sizes(size: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_size(size)
    assert refused.value.param == "size"
    assert refused.value.message == (
        f'Invalid size \'{size}\'. Send "auto" or WIDTHxHEIGHT in pixels, such as "1024x1024".'
    )
