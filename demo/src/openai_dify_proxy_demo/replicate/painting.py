"""Landscapes drawn from a text and a seed; equal pairs give equal pictures."""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageDraw

from openai_dify_proxy_demo.replicate.captions import write_caption

HILLS = 5
"""The number of layers of hills."""

SMOOTHED_PIXELS = 1_600_000
"""Pictures up to this size are drawn at twice their size, then reduced, for smooth edges."""

Colour = tuple[int, int, int]


def paint(text: str, seed: int, size: tuple[int, int], signature: str = "") -> Image.Image:
    """Return an RGB picture of this width and height: a sky with a sun, hills, and the text as its caption."""
    chance = _numbers(f"{seed}\0{text}")
    hue = next(chance)
    picture = _sky(size, hue, next(chance))
    _sun(picture, hue, chance)
    for layer in range(HILLS):
        _hills(picture, layer, hue, chance)
    write_caption(picture, text, signature)
    return picture


def _numbers(key: str) -> Iterator[float]:
    """Yield pseudo-random numbers in [0, 1) that depend only on the key."""
    block = 0
    while True:
        digest = hashlib.sha512(f"{block}\0{key}".encode("utf-8", "surrogatepass")).digest()
        yield from (int.from_bytes(digest[start : start + 4]) / 2**32 for start in range(0, len(digest), 4))
        block += 1


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _sky(size: tuple[int, int], hue: float, drift: float) -> Image.Image:
    top = Image.new("RGB", size, _colour(hue, 0.65, 0.75))
    horizon = Image.new("RGB", size, _colour(hue + 0.35 + drift / 5, 0.35, 1))
    return Image.composite(horizon, top, Image.linear_gradient("L").resize(size))


def _sun(picture: Image.Image, hue: float, chance: Iterator[float]) -> None:
    width, height = picture.size
    radius = max(2, round(min(width, height) * (0.06 + 0.08 * next(chance))))
    x, y = round(width * (0.15 + 0.7 * next(chance))), round(height * (0.12 + 0.25 * next(chance)))
    glow = ImageChops.invert(Image.radial_gradient("L")).point([max(0, value - 75) for value in range(256)])
    glow = glow.resize((radius * 8, radius * 8))
    picture.paste(_colour(hue + 0.4, 0.15, 1), (x - radius * 4, y - radius * 4), glow)
    disc = Image.new("L", (radius * 8, radius * 8))
    ImageDraw.Draw(disc).ellipse((0, 0, radius * 8 - 1, radius * 8 - 1), fill=255)
    disc = disc.resize((radius * 2, radius * 2))
    picture.paste(_colour(hue + 0.42, 0.08, 1), (x - radius, y - radius), disc)


def _hills(picture: Image.Image, layer: int, hue: float, chance: Iterator[float]) -> None:
    width, height = picture.size
    factor = 2 if width * height <= SMOOTHED_PIXELS else 1
    near = layer / (HILLS - 1)
    base = 0.5 + 0.32 * near + 0.05 * (next(chance) - 0.5)
    waves = [
        (amplitude * (0.4 + next(chance)), frequency * (0.6 + next(chance)), next(chance) * math.tau)
        for amplitude, frequency in ((0.055, 5), (0.025, 13), (0.008, 37))
    ]

    def ridge(x: float) -> float:
        return base - sum(amplitude * math.sin(frequency * x + phase) for amplitude, frequency, phase in waves)

    steps = max(2, min(width, 256))
    points = [(width * factor * step / steps, height * factor * ridge(step / steps)) for step in range(steps + 1)]
    mask = Image.new("L", (width * factor, height * factor))
    bottom = height * factor
    ImageDraw.Draw(mask).polygon([*points, (width * factor, bottom), (0, bottom)], fill=255)
    if factor > 1:
        mask = mask.reduce(factor)
    picture.paste(_colour(hue + 0.5 + 0.1 * near, 0.3 + 0.4 * near, 0.75 - 0.6 * near), (0, 0), mask)
