"""What is kept of what models make, and what is not kept at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image, PngImagePlugin

from openai_dify_proxy.errors import BadPicture
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.service import Pictures, open_pictures
from openai_dify_proxy.settings import Settings, SettingsError, load_settings
from openai_dify_proxy.translate.pictures.ipfs_cid import compute_cid
from tests.pictures.contract import files
from tests.pictures.samples import SAMPLES, SECRET, encode, image, pixels, png, png_header

FACTS = PictureFacts(created=1_700_000_000, model="a/b", prediction_id="p1", seed=42)
LIMIT = 5_000_000


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(LocalPictures(tmp_path), limit=LIMIT)


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_picture_is_kept_without_its_text(pictures: Pictures, name: str) -> None:
    kept = await pictures.keep(SAMPLES[name], FACTS)
    record = kept.record
    with Image.open(io.BytesIO(SAMPLES[name])) as picture:
        assert (record.width, record.height) == picture.size
        assert record.media_type == Image.MIME[picture.format or ""]
    assert SECRET.encode() not in kept.data
    assert pixels(kept.data) == pixels(SAMPLES[name])
    assert record.sha256 == hashlib.sha256(kept.data).hexdigest()
    assert record.size == len(kept.data)
    assert record.cid == compute_cid(kept.data)
    assert (record.created, record.model, record.prediction_id, record.seed) == (1_700_000_000, "a/b", "p1", 42)
    assert (record.prompt, record.ipfs) == (None, "off")
    assert await pictures.store.read(record.name) == kept.data
    assert await pictures.store.record(record.name) == record


async def test_a_prompt_is_kept_when_it_is_given(pictures: Pictures) -> None:
    kept = await pictures.keep(png(), PictureFacts(created=1, prompt="a fox"))
    assert kept.record.prompt == "a fox"


async def test_with_ipfs_a_picture_is_pending(tmp_path: Path) -> None:
    pictures = Pictures(LocalPictures(tmp_path), limit=LIMIT, ipfs=True)
    kept = await pictures.keep(png(), FACTS)
    assert kept.record.ipfs == "pending"
    assert await pictures.store.pending() == [kept.record.name]


async def test_the_same_picture_is_kept_once(pictures: Pictures, tmp_path: Path) -> None:
    other_text = PngImagePlugin.PngInfo()
    other_text.add_text("prompt", "something else")
    kept = await asyncio.gather(
        *(pictures.keep(data, FACTS) for data in (png(), png(pnginfo=other_text), png(), png()))
    )
    assert len({one.record.name for one in kept}) == 1
    assert len(files(tmp_path)) == 3, "picture, record, and lock"


async def test_keeping_pictures_does_not_stop_the_event_loop(pictures: Pictures) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    await pictures.keep(encode(image("RGB", (1500, 1500)), "PNG"), FACTS)
    heart.cancel()
    assert beats > 10


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_text_bomb(data: bytes) -> bytes:
    """A picture with 200 MB of text, packed into 200 kB."""
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
async def test_what_is_no_picture_is_not_kept(pictures: Pictures, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadPicture) as caught:
        await pictures.keep(data, FACTS)
    assert caught.value.started, "it was paid for, so clients are asked not to try again"
    assert not files(tmp_path)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
async def test_a_picture_that_is_cut_off_is_not_kept(pictures: Pictures, name: str, part: float) -> None:
    whole = (await pictures.keep(SAMPLES[name], FACTS)).data
    with pytest.raises(BadPicture):
        await pictures.keep(whole[: int(len(whole) * part)], FACTS)


async def test_pixel_data_that_is_cut_off_inside_a_whole_file_is_noticed(pictures: Pictures) -> None:
    data = encode(image("RGB", (256, 256)), "PNG")
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at])
    half = data[at + 4 : at + 4 + length // 2]
    with pytest.raises(BadPicture):
        await pictures.keep(data[: at - 4] + chunk(b"IDAT", half) + data[at + 8 + length :], FACTS)


async def test_a_bomb_of_text_is_defused(pictures: Pictures) -> None:
    kept = await pictures.keep(with_text_bomb(encode(image(), "PNG")), FACTS)
    assert pixels(kept.data) == pixels(encode(image(), "PNG"))


async def test_an_animation_that_is_too_long_for_its_size_is_not_kept(pictures: Pictures) -> None:
    """A GIF packs frames of one colour so well that a small file holds more of them than any memory."""
    still = Image.new("P", (8000, 8000))
    data = encode(still, "GIF", save_all=True, append_images=[still.copy() for _ in range(1)], duration=10)
    at = data.rindex(b"\x21\xf9")
    frame = data[at:-1]
    with pytest.raises(BadPicture, match="too long"):
        await pictures.keep(data[:-1] + frame * 5 + b"\x3b", FACTS)


@pytest.mark.parametrize(
    ("public_url", "base_url", "expected"),
    [
        (None, "http://127.0.0.1:8223/", "http://127.0.0.1:8223/pictures/"),
        (None, "http://127.0.0.1:8223", "http://127.0.0.1:8223/pictures/"),
        ("https://ai.test/images", "http://127.0.0.1:8223/", "https://ai.test/images/pictures/"),
    ],
)
async def test_links(tmp_path: Path, public_url: str | None, base_url: str, expected: str) -> None:
    pictures = Pictures(LocalPictures(tmp_path), limit=LIMIT, public_url=public_url)
    record = (await pictures.keep(png(), FACTS)).record
    assert pictures.link(record, base_url) == expected + record.name


async def test_links_to_the_gateway_are_given_for_what_is_there(tmp_path: Path) -> None:
    settings = load_settings(
        env={
            "IMAGE_STORAGE_DIR": str(tmp_path),
            "IPFS_UPLOAD_URL": "http://127.0.0.1:1",
            "IPFS_GATEWAY_URL": "https://{cid}.ipfs.test/",
            "PICTURE_LINKS": "ipfs",
        },
        dotenv=None,
    )
    pictures = open_pictures(settings)
    pending = (await pictures.keep(png(), FACTS)).record
    assert pictures.link(pending, "http://here/") == f"http://here/pictures/{pending.name}"
    sent = replace(pending, ipfs="sent")
    assert pictures.link(sent, "http://here/") == f"https://{pending.cid}.ipfs.test/"


async def test_without_a_setting_links_are_local_also_for_what_is_on_ipfs(tmp_path: Path) -> None:
    env = {
        "IMAGE_STORAGE_DIR": str(tmp_path),
        "IPFS_UPLOAD_URL": "http://127.0.0.1:1",
        "IPFS_GATEWAY_URL": "https://ipfs.test/ipfs/{cid}",
    }
    pictures = open_pictures(load_settings(env=env, dotenv=None))
    record = (await pictures.keep(png(), FACTS)).record
    assert pictures.link(replace(record, ipfs="sent"), "http://here/") == f"http://here/pictures/{record.name}"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("s3://bucket?serve=both", "serve=both: it must be proxy or redirect"),
        ("s3://bucket?colour=blue", "PICTURE_STORE cannot be used"),
    ],
)
def test_options_of_an_object_store_that_make_no_sense_are_told(url: str, complaint: str) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(SettingsError, match=complaint):
        open_pictures(Settings(picture_store=url))  # type: ignore[arg-type]
