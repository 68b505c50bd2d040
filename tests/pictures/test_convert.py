"""Convert pictures between formats and masks between polarities."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.pictures.convert import convert
from openai_dify_proxy.pictures.masks import invert_mask, mask_in_polarity
from openai_dify_proxy.translate.pictures.formats import OutputFormat, sniff
from tests.pictures.samples import PROFILE, SAMPLES, encode, exif, image, jpeg, pixels, png, png_header

TARGETS: list[OutputFormat] = ["png", "jpg", "webp"]


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("to", TARGETS)
async def test_every_format_converts_to_every_other(name: str, to: OutputFormat) -> None:
    original = SAMPLES[name]
    converted = await convert(original, to=to)
    found = sniff(converted)
    assert found is not None
    assert found.extension == to
    before, after = opened(original), opened(converted)
    assert after.size in (before.size, before.size[::-1])
    if sniff(original) == found:
        assert converted == original, "pictures in the requested format are unchanged"


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "LA", "P"])
async def test_conversion_to_png_is_lossless(mode: str) -> None:
    data = encode(image(mode), "WEBP", lossless=True, exact=True)
    assert pixels(await convert(data, to="png")) == pixels(data)


async def test_transparency_becomes_white_in_a_jpeg() -> None:
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 8, 16))
    picture = opened(await convert(encode(half, "PNG"), to="jpg"))
    assert picture.mode == "RGB"
    assert picture.getpixel((14, 8)) == (255, 255, 255)
    blue = picture.getpixel((1, 8))
    assert isinstance(blue, tuple)
    assert blue[2] > 240
    assert blue[0] < 15


async def test_transparency_stays_in_a_webp() -> None:
    assert opened(await convert(png(), to="webp")).mode == "RGBA"
    palette = encode(Image.new("P", (8, 8), 0), "PNG", transparency=0)
    assert opened(await convert(palette, to="webp")).getpixel((0, 0))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("to", ["jpg", "webp"])
async def test_greys_of_16_bits_become_those_of_8(to: OutputFormat) -> None:
    grey = encode(Image.new("I;16", (16, 16), 40_000), "PNG")
    assert opened(await convert(grey, to=to)).convert("L").getpixel((8, 8)) == pytest.approx(40_000 / 257, abs=2)
    assert opened(await invert_mask(grey)).getpixel((8, 8)) == pytest.approx(255 - 40_000 / 257, abs=2)


async def test_quality_affects_the_size() -> None:
    noise = encode(Image.effect_noise((128, 128), 90), "PNG")
    for to in ("jpg", "webp"):
        sizes = [len(await convert(noise, to=to, quality=quality)) for quality in (0, 50, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2] / 2


async def test_the_colour_profile_is_copied_unless_it_would_be_wrong() -> None:
    assert opened(await convert(png(), to="jpg")).info["icc_profile"] == PROFILE
    inks = encode(image("CMYK"), "JPEG", icc_profile=b"a profile of inks")
    assert "icc_profile" not in opened(await convert(inks, to="png")).info


async def test_a_rotated_picture_is_set_upright() -> None:
    data = jpeg(orientation=6)
    upright = opened(await convert(data, to="png"))
    assert upright.size == opened(data).size[::-1]
    assert not upright.getexif()
    assert exif(6)[0x0112] == 6


@pytest.mark.parametrize(
    "data", [b"", b"<svg/>", png_header(30_000, 30_000), png()[:100]], ids=["nothing", "svg", "bomb", "cut off"]
)
async def test_other_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(BadPicture):
        await convert(data, to="jpg")


async def test_a_picture_too_large_for_its_new_format_is_rejected() -> None:
    with pytest.raises(BadPicture):
        await convert(encode(Image.new("L", (16_384, 1)), "PNG"), to="webp")  # WebP has 16383 at most


def mask(mode: str = "L") -> Image.Image:
    drawn = Image.new("L", (8, 4), 0)
    drawn.paste(255, (0, 0, 4, 4))
    return drawn.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
async def test_a_mask_is_inverted(mode: str) -> None:
    inverted = opened(await invert_mask(encode(mask(mode), "PNG")))
    assert inverted.mode == "L"
    assert [inverted.getpixel((x, 0)) for x in (0, 7)] == [0, 255]
    assert opened(await invert_mask(await invert_mask(encode(mask(), "PNG")))).tobytes() == mask().tobytes()


async def test_transparency_in_a_mask_counts_as_black() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    clear.putpixel((1, 0), (255, 255, 255, 0))
    inverted = opened(await invert_mask(encode(clear, "PNG")))
    assert [inverted.getpixel((x, 0)) for x in (0, 1)] == [0, 255]


@pytest.mark.parametrize("black_repaints", [True, False])
async def test_a_mask_of_openai_is_transparent_where_it_repaints(black_repaints: bool) -> None:
    picture = image("RGB", (8, 4))
    picture.putalpha(mask())  # opaque on the left, transparent on the right
    drawn = opened(await mask_in_polarity(encode(picture, "PNG"), black_repaints=black_repaints, param="mask"))
    assert drawn.mode == "L"
    assert [drawn.getpixel((x, 0)) for x in (0, 7)] == ([255, 0] if black_repaints else [0, 255])


async def test_a_mask_without_transparency_is_white_where_it_repaints() -> None:
    original = encode(mask(), "PNG")
    assert await mask_in_polarity(original, black_repaints=False, param="mask") == original
    inverted = opened(await mask_in_polarity(original, black_repaints=True, param="mask"))
    assert [inverted.getpixel((x, 0)) for x in (0, 7)] == [0, 255]


async def test_an_invalid_mask_is_a_client_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        await invert_mask(b"<svg/>")
    assert caught.value.param == "mask"
    with pytest.raises(InvalidRequest):
        await mask_in_polarity(b"<svg/>", black_repaints=False)
