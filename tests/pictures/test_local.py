"""Pictures in a directory: on full and unwritable disks, and after a process was killed."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openai_dify_proxy.errors import PictureNotStored
from openai_dify_proxy.pictures.local import LEFTOVER_SECONDS, LocalPictures
from tests.pictures.contract import StoreContract, files, record


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalPictures]:
    local = LocalPictures(tmp_path / "new" / "pictures")
    yield local
    await local.close()


@pytest.fixture
async def other(store: LocalPictures) -> AsyncIterator[LocalPictures]:
    local = LocalPictures(store.directory)
    yield local
    await local.close()


class TestLocal(StoreContract):
    pass


async def test_the_directory_layout(store: LocalPictures) -> None:
    digest = "abcd" + "0" * 60
    await store.put(b"abc", record(sha256=digest, ipfs="pending", prompt="ein Füchschen"))
    assert files(store.directory) == {
        f"ab/cd/{digest}.png",
        f"ab/cd/{digest}.json",
        f"pending/{digest}.png",
        "locks/ab",
    }
    assert "ein Füchschen" in (store.directory / f"ab/cd/{digest}.json").read_text("utf-8")


async def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await LocalPictures("~/pictures").put(b"abc", record(1))
    assert (tmp_path / "pictures").is_dir()


async def test_a_picture_whose_record_was_lost_gets_a_new_one(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, seed=1))
    path = store.directory / "00" / "00" / f"{record(1).sha256}.json"
    path.unlink()
    assert await store.record(record(1).name) is None
    assert await store.put(b"abc", record(1, seed=2)) == record(1, seed=2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "0"}'])
async def test_an_unreadable_record_is_replaced(store: LocalPictures, text: str) -> None:
    await store.put(b"abc", record(1, seed=1))
    (store.directory / "00" / "00" / f"{record(1).sha256}.json").write_text(text)
    assert await store.record(record(1).name) is None
    assert [one async for one in store.records()] == []
    await store.put(b"abc", record(1, seed=2))
    assert await store.record(record(1).name) == record(1, seed=2)


async def test_a_picture_truncated_by_another_program_is_written_again(store: LocalPictures) -> None:
    await store.put(b"abc", record(1))
    (store.directory / "00" / "00" / record(1).name).write_bytes(b"a")
    await store.put(b"abc", record(1))
    assert await store.read(record(1).name) == b"abc"


async def test_only_records_before_the_given_time_are_listed(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, created=100))
    await store.put(b"abc", record(2, created=200))
    assert [one.created async for one in store.records(before=150)] == [100]


async def test_leftovers_of_a_killed_process_are_removed_when_no_writer_can_be_active(store: LocalPictures) -> None:
    await store.put(b"abc", record(1))
    old, new = (store.directory / "unfinished" / name for name in ("old", "new"))
    old.touch()
    new.touch()
    then = time.time() - LEFTOVER_SECONDS - 1
    os.utime(old, (then, then))
    await store.put(b"abc", record(2))
    assert (old.exists(), new.exists()) == (False, True)


async def test_a_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = LocalPictures(tmp_path / "file" / "pictures")
    with pytest.raises(PictureNotStored, match="The disk of the server failed"):
        await store.put(b"abc", record(1))


async def test_a_full_disk_is_an_error_and_leaves_no_partial_file(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, ipfs="pending"))
    before = files(store.directory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PictureNotStored, match="The disk of the server is full") as caught:
            await store.put(bytes(5000), record(2, size=5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.started
    assert files(store.directory) == before
    await store.put(bytes(5000), record(2, size=5000))
    assert await store.read(record(2).name) == bytes(5000)


async def test_nothing_is_written_before_the_first_picture(tmp_path: Path) -> None:
    store = LocalPictures(tmp_path / "pictures")
    assert not await store.take_lease()
    assert await store.record(record(1).name) is None
    assert await store.pending() == []
    assert [one async for one in store.records()] == []
    assert [name async for name in store.orphans()] == []
    assert not await store.delete(record(1).name)
    assert not store.directory.exists()
    await store.put(b"abc", record(1))
    assert await store.take_lease()
    await store.close()


WRITER = """
import asyncio, sys
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureRecord

async def write() -> None:
    store = LocalPictures(sys.argv[1])
    print(await store.take_lease(), flush=True)
    number = 0
    while True:
        number += 1
        record = PictureRecord(sha256=f"{number:064x}", extension="png", media_type="image/png", size=200_000,
                               width=1, height=1, created=1, ipfs="pending")
        await store.put(number.to_bytes(4) * 50_000, record)
        print(number, flush=True)

asyncio.run(write())
"""


@pytest.mark.parametrize("pictures", [1, 7, 20])
async def test_a_killed_writer_leaves_only_complete_pictures(store: LocalPictures, pictures: int) -> None:
    store.directory.mkdir(parents=True)  # without it there is no lease
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(store.directory), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"True\n"
    assert not await store.take_lease()
    for _ in range(pictures):
        await writer.stdout.readline()
    writer.kill()
    rest, _ = await writer.communicate()
    written = pictures + rest.count(b"\n")
    assert await store.take_lease(), "the kernel releases the lease of a dead process"
    records = {one.name: one async for one in store.records()}
    assert records.keys() >= {record(number).name for number in range(1, written + 1)}
    for name, one in records.items():
        assert await store.read(name) == int(one.sha256, 16).to_bytes(4) * 50_000
        assert name in await store.pending()
