"""Captions use only characters of the font, stay in their strip, and replace each other."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFont

from demo.tests.replicate_caller import ReplicateCaller, data_uri
from openai_dify_proxy_demo.replicate.captions import caption_strip, legible, write_caption
from openai_dify_proxy_demo.replicate.painting import paint
from openai_dify_proxy_demo.replicate.rendering import encode_png

FONT = ImageFont.load_default(32)
TOFU = bytes(FONT.getmask("\N{PRIVATE USE ONE}"))
SIZES = [(1024, 1024), (1536, 640), (640, 1536), (256, 128), (64, 64), (9, 9), (1, 1), (3, 700)]
SDXL = "stability-ai/sdxl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A lighthouse at dusk, “far” out…", "A lighthouse at dusk, “far” out..."),
        ("Straße in Łódź – café", "Strasse in Lodz - cafe"),
        ("你好，世界！", "[Chinese text]!"),
        ("富士山の夕日", "[Japanese text]"),
        ("데모입니다", "[Korean text]"),
        ("مرحبا بالعالم", "[Arabic text]"),
        ("a fox: Привет, мир", "a fox: [Cyrillic text]"),
        ("नमस्ते दुनिया", "[Devanagari text]"),
        ("a 🦊 in snow", "a [emoji] in snow"),
        ("👨‍👩‍👧 👋🏽 ❤️", "[emoji] [emoji] [emoji]"),
        ("٣ foxes for €5", "3 foxes for EUR5"),
        ("one\u2028two\0\u200b", "one two"),
    ],
)
def test_characters_missing_in_the_font_are_named(text: str, shown: str) -> None:
    assert legible(text) == shown


@given(st.text(max_size=50))
def test_no_character_is_drawn_as_a_box(text: str) -> None:
    for character in legible(text):
        assert bytes(FONT.getmask(character)) != TOFU


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["A fox", "word " * 90, "W" * 300, "你好 " * 90])
def test_a_caption_stays_in_its_strip(size: tuple[int, int], text: str) -> None:
    plain = Image.new("RGB", size, "green")
    captioned = plain.copy()
    write_caption(captioned, text, "owner/model · seed 7")
    changed = ImageChops.difference(plain, captioned).getbbox()
    _, top, _, _ = caption_strip(size)
    assert changed is None or changed[1] >= top


def test_a_caption_in_another_script_shows_its_name() -> None:
    pictures = []
    for text in ("a 你好 b", "a [Chinese text] b"):
        picture = Image.new("RGB", (640, 640), "green")
        write_caption(picture, text, "")
        pictures.append(picture)
    assert ImageChops.difference(*pictures).getbbox() is None


def strip_of(data: bytes) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return picture.crop(caption_strip(picture.size)).tobytes()


def captioned(text: str, size: tuple[int, int]) -> str:
    return data_uri(paint(text, 1, size))


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("text", ["A hare", "word " * 90])
def test_edited_picture_has_only_its_own_caption(replicate: ReplicateCaller, strength: float, text: str) -> None:
    [edited] = replicate.bytes_of(
        SDXL, prompt="a fox", seed=3, image=captioned(text, (640, 384)), prompt_strength=strength
    )
    alone = encode_png(paint("a fox", 3, (640, 384), f"{SDXL} · seed 3"))
    assert strip_of(edited) == strip_of(alone)


def test_edited_picture_of_another_shape_covers_the_earlier_caption(replicate: ReplicateCaller) -> None:
    inputs = {"prompt": "a fox", "seed": 3, "prompt_strength": 0.3, "width": 256, "height": 512}
    green = Image.new("RGB", (512, 256), "green")
    written = green.copy()
    write_caption(written, "word " * 90, "owner/model · seed 7")
    edits = [
        replicate.picture("stability-ai/stable-diffusion", init_image=data_uri(source), **inputs)
        for source in (green, written)
    ]
    changed = ImageChops.difference(*(edit.convert("RGB") for edit in edits)).getbbox()
    edge = caption_strip((256, 512))[1]
    assert changed is None or changed[3] <= edge
    assert changed is None or changed[1] >= edge - 8, "the edge of the earlier strip, blurred by resizing"


def test_mask_protects_one_caption_and_repaints_the_other(replicate: ReplicateCaller) -> None:
    size = (640, 384)
    mask = Image.new("L", size, "black")
    mask.paste("white", (320, 0, *size))
    source = paint("A hare", 1, size)
    edited = replicate.picture(
        SDXL, prompt="a fox", seed=3, image=data_uri(source), mask=data_uri(mask), prompt_strength=0.5
    ).convert("RGB")
    new = paint("a fox", 3, size, f"{SDXL} · seed 3")
    _, top, right, bottom = caption_strip(size)
    for expected, box in ((source, (0, top, 320, bottom)), (new, (320, top, right, bottom))):
        assert edited.crop(box).tobytes() == expected.crop(box).tobytes()
