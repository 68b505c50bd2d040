"""Store generated pictures without their text, and reject unsafe ones."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from openai_dify_proxy.errors import BadPicture
from openai_dify_proxy.pictures.decoding import decode_all
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.translate.pictures.ipfs_cid import compute_cid
from tests.pictures.contract import files
from tests.pictures.samples import SAMPLES, SECRET, encode, image, pixels, png, png_header

FACTS = PictureFacts(created=1_700_000_000, model="a/b", prediction_id="p1", seed=42)
LIMIT = 5_000_000


@pytest.fixture
def store(tmp_path: Path) -> LocalPictures:
    return LocalPictures(tmp_path)


@pytest.fixture
def writer(store: LocalPictures) -> PictureWriter:
    return PictureWriter(store, limit=LIMIT)


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_picture_is_stored_without_its_text(writer: PictureWriter, store: LocalPictures, name: str) -> None:
    stored = await writer.store(SAMPLES[name], FACTS)
    record = stored.record
    with Image.open(io.BytesIO(SAMPLES[name])) as picture:
        assert (record.width, record.height) == picture.size
        assert record.media_type == Image.MIME[picture.format or ""]
    assert SECRET.encode() not in stored.data
    assert pixels(stored.data) == pixels(SAMPLES[name])
    assert record.sha256 == hashlib.sha256(stored.data).hexdigest()
    assert record.size == len(stored.data)
    assert record.cid == compute_cid(stored.data)
    assert (record.created, record.model, record.prediction_id, record.seed) == (1_700_000_000, "a/b", "p1", 42)
    assert (record.prompt, record.ipfs) == (None, "off")
    assert await store.read(record.name) == stored.data
    assert await store.record(record.name) == record


async def test_a_prompt_is_stored_when_it_is_given(writer: PictureWriter) -> None:
    stored = await writer.store(png(), PictureFacts(created=1, prompt="a fox"))
    assert stored.record.prompt == "a fox"


async def test_with_ipfs_a_picture_is_pending(store: LocalPictures) -> None:
    writer = PictureWriter(store, limit=LIMIT, ipfs=True)
    stored = await writer.store(png(), FACTS)
    assert stored.record.ipfs == "pending"
    assert await store.pending() == [stored.record.name]


async def test_the_same_picture_is_stored_once(writer: PictureWriter, tmp_path: Path) -> None:
    other_text = PngImagePlugin.PngInfo()
    other_text.add_text("prompt", "something else")
    stored = await asyncio.gather(
        *(writer.store(data, FACTS) for data in (png(), png(pnginfo=other_text), png(), png()))
    )
    assert len({one.record.name for one in stored}) == 1
    assert len(files(tmp_path)) == 3, "picture, record, and lock"


async def test_storing_pictures_does_not_stop_the_event_loop(writer: PictureWriter) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    await writer.store(encode(image("RGB", (1500, 1500)), "PNG"), FACTS)
    heart.cancel()
    assert beats > 10


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_text_bomb(data: bytes) -> bytes:
    """Add 200 MB of text, compressed to 200 kB, to a picture."""
    bomb = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(200_000_000)))
    at = data.index(b"IDAT") - 4
    return data[:at] + bomb + data[at:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", id="svg"),
        pytest.param(b"<?xml version='1.0'?><svg/>", id="svg with a prolog"),
        pytest.param(b"<!doctype html><script>alert(1)</script>", id="html"),
        pytest.param(b"GIF89a<script>alert(1)</script>", id="html that begins like a gif"),
        pytest.param(b"\x89PNG\r\n\x1a\n<script>alert(1)</script>", id="html that begins like a png"),
        pytest.param(encode(image(), "BMP"), id="bmp"),
        pytest.param(encode(image(), "TIFF"), id="tiff"),
        pytest.param(encode(image(), "PDF"), id="pdf"),
        pytest.param(encode(image(), "ICO"), id="ico"),
        pytest.param(encode(image(), "PNG").replace(b"IHDR", b"JHDR"), id="png without a header"),
        pytest.param(png_header(30_000, 30_000), id="a header of 900 million pixels"),
        pytest.param(png_header(10_000, 10_000), id="a header of 100 million pixels"),
        pytest.param(png_header(8193, 8192), id="a header of one row too many"),
        pytest.param(png_header(2**31 - 1, 2**31 - 1), id="a header of more pixels than there are"),
        pytest.param(png_header(0, 1), id="no pixels"),
        pytest.param(png_header(64, 64), id="fewer pixels than announced"),
        pytest.param(encode(image(), "PNG") + bytes(LIMIT), id="more bytes than allowed"),
    ],
)
async def test_other_bytes_are_not_stored(writer: PictureWriter, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadPicture) as caught:
        await writer.store(data, FACTS)
    assert caught.value.started, "the picture was paid for, so clients must not retry"
    assert not files(tmp_path)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
async def test_a_truncated_picture_is_not_stored(writer: PictureWriter, name: str, part: float) -> None:
    whole = (await writer.store(SAMPLES[name], FACTS)).data
    with pytest.raises(BadPicture):
        await writer.store(whole[: int(len(whole) * part)], FACTS)


async def test_truncated_pixel_data_inside_a_complete_file_is_detected(writer: PictureWriter) -> None:
    data = encode(image("RGB", (256, 256)), "PNG")
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at])
    half = data[at + 4 : at + 4 + length // 2]
    with pytest.raises(BadPicture):
        await writer.store(data[: at - 4] + chunk(b"IDAT", half) + data[at + 8 + length :], FACTS)


async def test_a_decompression_bomb_in_text_is_removed(writer: PictureWriter) -> None:
    stored = await writer.store(with_text_bomb(encode(image(), "PNG")), FACTS)
    assert pixels(stored.data) == pixels(encode(image(), "PNG"))


def test_the_frames_of_an_animation_have_at_most_four_times_the_pixels_of_a_picture() -> None:
    """Frames of one colour compress so well that a small GIF may hold more of them than fit into memory."""
    data = encode(Image.new("P", (100, 100)), "GIF", save_all=True, duration=10)
    at = data.rindex(b"\x21\xf9")
    frame = data[at:-1]
    decode_all(data[:at] + frame * 4 + b"\x3b", 10_000)
    with pytest.raises(BadPicture, match="animation is too large"):
        decode_all(data[:at] + frame * 5 + b"\x3b", 10_000)
