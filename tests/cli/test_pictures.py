"""The command ``pictures``: listing stored pictures, and uploading pending ones to IPFS."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.writer import PictureWriter
from tests.cli.program import Program
from tests.cli.tables import row, rows
from tests.components.odd_ipfs import Answer, added, answer, odd_ipfs
from tests.pictures.samples import encode, image

# 2026-01-02 03:04:05 UTC, as `date -u -d @1767323045` says
CREATED = 1767323045
FULL = answer('{"Message":"the disk is full","Type":"error"}', "500 Internal Server Error")


@pytest.fixture
def store(program: Program) -> LocalPictures:
    """The default directory of pictures in the program's HOME."""
    return LocalPictures(program.directory / ".local/share/openai-dify-proxy/pictures")


async def keep(store: LocalPictures, *, ipfs: bool, side: int = 16, seed: int | None = None) -> PictureRecord:
    """Pictures of different sides are different pictures, each made a minute after the smaller ones."""
    facts = PictureFacts(created=CREATED + 60 * (side - 16), model="stability-ai/sdxl", seed=seed)
    kept = await PictureWriter(store, limit=10**7, ipfs=ipfs).store(encode(image(size=(side, 16)), "PNG"), facts)
    return kept.record


def test_no_pictures_are_stored(program: Program) -> None:
    ended = program.run("pictures")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0 pictures, 0 bytes.\n", "")
    assert json.loads(program.run("pictures", "--json").stdout) == []
    assert not (program.directory / ".local").exists()


async def test_stored_pictures_are_listed(program: Program, store: LocalPictures) -> None:
    private = await keep(store, ipfs=False)
    waiting = await keep(store, ipfs=True, side=17)
    ended = await asyncio.to_thread(program.run, "pictures")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [cells[0] for cells in rows(ended.stdout)] == [waiting.name, private.name]
    assert row(ended.stdout, private.name)[1:] == [
        f"{private.size} bytes",
        "16x16",
        "stability-ai/sdxl",
        "2026-01-02 03:04",
        "off",
        "",
    ]
    assert row(ended.stdout, waiting.name)[5:] == ["pending", waiting.cid]
    assert ended.stdout.endswith(" bytes, 1 of them pending for IPFS.\n")

    pending = await asyncio.to_thread(program.run, "pictures", "--pending")
    assert [cells[0] for cells in rows(pending.stdout)] == [waiting.name]
    assert pending.stdout.endswith(f"1 picture pending for IPFS, {waiting.size} bytes.\n")


async def test_as_json(program: Program, store: LocalPictures) -> None:
    record = await keep(store, ipfs=False, seed=7)
    ended = await asyncio.to_thread(program.run, "pictures", "--json", IMAGE_STORAGE_DIR=str(store.directory))
    assert json.loads(ended.stdout) == [
        {
            "name": record.name,
            "media_type": "image/png",
            "size": len(await store.read(record.name)),
            "width": 16,
            "height": 16,
            "created": CREATED,
            "model": "stability-ai/sdxl",
            "prediction_id": None,
            "seed": 7,
            "cid": record.cid,
            "ipfs": "off",
        }
    ]


async def send(program: Program, *answers: Answer, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
    async with odd_ipfs(*answers) as node:
        ended = await asyncio.to_thread(program.run, "pictures", "--send", *arguments, IPFS_UPLOAD_URL=node.url)
    return ended.returncode, ended.stdout, ended.stderr


async def test_pending_pictures_are_uploaded(program: Program, store: LocalPictures) -> None:
    record = await keep(store, ipfs=True)
    assert record.cid is not None
    code, said, progress = await send(program, added(record.cid))
    assert (code, said) == (0, "1 picture uploaded to IPFS, none pending.\n")
    assert "1/1" in progress
    sent = await store.record(record.name)
    assert sent is not None
    assert sent.ipfs == "sent"
    assert await store.pending() == []


async def test_rejected_pictures_stay_pending(program: Program, store: LocalPictures) -> None:
    for side in (16, 17, 18):
        await keep(store, ipfs=True, side=side)
    code, said, errors = await send(program, FULL)
    assert (code, said) == (1, "0 pictures uploaded to IPFS, 3 pending.\n")
    names = await store.pending()
    assert len(names) == 3
    for name in names:
        assert f"Not uploaded: {name}: IPFS rejected the picture. Status 500: " in errors
    cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    code, said, errors = await send(program, added(cid))
    assert (code, said) == (0, "3 pictures uploaded to IPFS, none pending.\n")
    # The CID of the node is stored, and a warning reports the difference.
    assert "ipfs_cid_differed" in errors
    shown = await asyncio.to_thread(program.run, "pictures", "--json")
    assert {(picture["cid"], picture["ipfs"]) for picture in json.loads(shown.stdout)} == {(cid, "sent")}


def test_there_must_be_somewhere_to_send_to(program: Program) -> None:
    ended = program.run("pictures", "--send")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "Error: IPFS_UPLOAD_URL is not set. Set it to the upload URL of an IPFS node or service\n"


def test_an_unreadable_store_is_reported(program: Program, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    ended = program.run("pictures", "--send", IMAGE_STORAGE_DIR=str(in_the_way), IPFS_UPLOAD_URL="http://127.0.0.1:9")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: The disk of the server failed, so pictures cannot be stored.")


def test_a_store_with_an_option_that_there_is_not(program: Program) -> None:
    ended = program.run("pictures", PICTURE_STORE="s3://bucket/pictures?colour=red")
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: PICTURE_STORE ")
