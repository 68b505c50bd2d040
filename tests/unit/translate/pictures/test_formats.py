"""Remove text from pictures, and compare the pixels and metadata that Pillow reads before and after."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from openai_dify_proxy.translate.pictures.formats import GIF, JPEG, PNG, WEBP, MalformedPicture, sniff, strip_text
from tests.pictures.samples import PROFILE, SAMPLES, SECRET, exif, gif, jpeg, pixels, png, segment, webp

MANY = 8 * 2**20

FORMATS = {"png": PNG, "apng": PNG, "jpeg": JPEG, "webp": WEBP, "gif": GIF}


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("name", SAMPLES)
def test_the_format_is_detected_by_the_first_bytes(name: str) -> None:
    (expected,) = {found for word, found in FORMATS.items() if word in name.split()}
    assert sniff(SAMPLES[name]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"\xff\xd8",
        b"RIFF\0\0\0\0WAVE",
        b"GIF88a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!doctype html>",
        b"BM",
        b"%PDF-1.7",
        b"\0\0\0\x1cftypavif",
    ],
)
def test_other_bytes_have_no_format(data: bytes) -> None:
    assert sniff(data) is None
    with pytest.raises(MalformedPicture):
        strip_text(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_text_is_removed_and_pixels_are_unchanged(name: str) -> None:
    stripped = strip_text(SAMPLES[name])
    assert SECRET.encode() not in stripped
    assert pixels(stripped) == pixels(SAMPLES[name])
    assert strip_text(stripped) == stripped


@pytest.mark.parametrize("data", [png(), jpeg(), webp()], ids=["png", "jpeg", "webp"])
def test_the_colour_profile_stays_and_exif_is_removed(data: bytes) -> None:
    assert opened(data).getexif()
    assert opened(strip_text(data)).info["icc_profile"] == PROFILE
    assert not opened(strip_text(data)).getexif()
    assert not {"xmp", "comment", "photoshop"} & opened(strip_text(data)).info.keys()


def test_resolution_and_transparency_of_a_png_stay() -> None:
    assert opened(strip_text(png())).info["dpi"] == pytest.approx((72, 72), rel=0.01)
    assert opened(strip_text(SAMPLES["png of a palette"])).info["transparency"] == 3


def test_a_picture_without_text_is_untouched() -> None:
    for name in ("png of a palette", "png in greys of 16 bits", "jpeg in four inks", "simple webp"):
        assert strip_text(SAMPLES[name]) == SAMPLES[name]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [jpeg, png, webp])
def test_a_picture_stays_the_right_way_up(make: Callable[..., bytes], orientation: int) -> None:
    stripped = opened(strip_text(make(exif=exif(orientation).tobytes())))
    assert stripped.getexif().get(0x0112, 1) == orientation
    assert dict(stripped.getexif()) == ({0x0112: orientation} if orientation > 1 else {})


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"MM\0*",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0",
    ],
)
def test_malformed_exif_is_removed_entirely(tiff: bytes) -> None:
    data = SAMPLES["jpeg in four inks"]
    assert strip_text(data[:2] + segment(0xE1, b"Exif\0\0" + tiff) + data[2:]) == data


def test_exif_of_a_camera_in_the_other_byte_order_is_read() -> None:
    fields = exif(8)
    fields.endian = "<"
    data = jpeg(exif=fields.tobytes())
    assert opened(strip_text(data)).getexif()[0x0112] == 8


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [b"\xff\xd8\xff" + b"\xff" * MANY, b"\xff\xd8" + segment(0xDA, b"\0") + b"\xff\0" * (MANY // 2)],
    ids=["fill bytes", "stuffed zeros"],
)
def test_long_runs_of_a_byte_are_skipped(data: bytes) -> None:
    with pytest.raises(MalformedPicture, match="truncated"):
        strip_text(data)


def with_parts(count: int) -> Iterator[bytes]:
    """Yield pictures of ``count`` chunks, segments or blocks of each kind, without an end."""
    chunks = b"VP8 \0\0\0\0" * count
    yield b"\xff\xd8" + segment(0xFE, b"") * count
    yield b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0IDAT" + bytes(4)) * count
    yield riff(chunks)
    yield riff(b"ANMF" + struct.pack("<I", 16 + len(chunks)) + bytes(16) + chunks)
    yield b"GIF89a" + bytes(7) + b"\x21\xfe\0" * count
    yield gif_comment(count)


def gif_comment(blocks: int) -> bytes:
    """Return a GIF with a comment of so many sub-blocks, and without an end."""
    return b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01\x01" * blocks


def test_pictures_with_too_many_parts_are_rejected() -> None:
    for data in with_parts(1000):
        with pytest.raises(MalformedPicture, match="too many parts"):
            strip_text(data, max_parts=999)


def test_a_picture_has_at_most_half_a_million_parts() -> None:
    with pytest.raises(MalformedPicture, match="truncated"):
        strip_text(gif_comment(499_999))
    with pytest.raises(MalformedPicture, match="too many parts"):
        strip_text(gif_comment(500_000))


def test_fill_bytes_and_other_application_segments_are_removed() -> None:
    data = SAMPLES["jpeg in four inks"]
    noise = b"\xff" * 3 + segment(0xE0, b"JFXX\0" + SECRET.encode()) + segment(0xE2, b"MPF\0") + segment(0xFE, b"")
    assert strip_text(data[:2] + noise + data[2:]) == data


def test_loops_of_a_gif_stay_and_its_comments_are_removed() -> None:
    before, after = opened(gif()), opened(strip_text(gif()))
    assert (before.info["loop"], before.info["comment"]) == (7, SECRET.encode())
    assert after.info["loop"] == 7
    assert "comment" not in after.info


def test_only_the_pixels_of_frames_of_an_animated_webp_stay() -> None:
    data = SAMPLES["animated webp"]
    at = data.index(b"ANMF")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    note = b"NOTE" + struct.pack("<I", len(SECRET)) + SECRET.encode()
    frame = b"ANMF" + struct.pack("<I", length + len(note)) + data[at + 8 : at + 8 + length] + note
    noted = bytearray(data[:at] + frame + data[at + 8 + length :])
    noted[4:8] = struct.pack("<I", int.from_bytes(data[4:8], "little") + len(note))
    assert strip_text(bytes(noted)) == strip_text(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_picture_is_rejected_or_still_has_all_its_pixels(name: str) -> None:
    whole = strip_text(SAMPLES[name])
    for length in range(len(whole)):
        with pytest.raises(MalformedPicture):
            strip_text(whole[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\x00\x00\x02",
        b"\xff\xd8\xff\xe0\x00\x01",
        b"\xff\xd8\xff\x01\x00\x04\0\0",
        b"\xff\xd8\xff\xd0\x00\x04\0\0",
        b"\xff\xd8\xff\xe0\x00\x04\0\0\0",
        b"RIFF\x03\0\0\0WEBP",
        b"GIF89a" + bytes(7) + b"\x20",
    ],
)
def test_malformed_pictures_are_rejected(data: bytes) -> None:
    with pytest.raises(MalformedPicture):
        strip_text(data)
