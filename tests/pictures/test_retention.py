"""Old pictures are removed, but never one whose upload is pending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.errors import PictureNotStored
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.retention import Retention
from tests.limits import PATIENCE
from tests.pictures.contract import files, record


@pytest.fixture
def store(tmp_path: Path) -> LocalPictures:
    return LocalPictures(tmp_path)


async def names(store: LocalPictures) -> set[str]:
    return {one.name async for one in store.records()}


async def test_only_old_pictures_without_pending_uploads_are_removed(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, created=100))
    await store.put(b"abc", record(2, created=100, ipfs="pending"))
    await store.put(b"abc", record(3, created=100, ipfs="sent"))
    await store.put(b"abc", record(4, created=200))
    retention = Retention(store, 50, clock=lambda: 200.0)
    assert await retention.sweep() == 2
    assert await names(store) == {record(2).name, record(4).name}
    await store.update(record(2).name, lambda _: record(2, created=100, ipfs="sent"))
    assert await retention.sweep() == 1
    assert await names(store) == {record(4).name}


async def test_storing_a_picture_again_renews_its_lifetime(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, created=100))
    await store.put(b"abc", record(1, created=190))
    assert await Retention(store, 50, clock=lambda: 200.0).sweep() == 0


async def test_a_picture_stored_again_during_a_sweep_stays(tmp_path: Path) -> None:
    class Stale(LocalPictures):
        """A store that lists outdated records."""

        async def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
            async for one in super().records(before=before):
                await self.put(b"abc", record(1, created=190))
                yield one

    store = Stale(tmp_path)
    await store.put(b"abc", record(1, created=100))
    assert await Retention(store, 50, clock=lambda: 200.0).sweep() == 0
    assert await store.read(record(1).name) == b"abc"


async def test_leftovers_of_a_killed_process_are_removed(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, created=190))
    await store.put(b"abc", record(2, created=190, ipfs="pending"))
    (store.directory / "00" / "00" / f"{record(2).sha256}.json").unlink()
    assert await Retention(store, 50, clock=lambda: 200.0).sweep() == 1
    assert not any(record(2).sha256 in name for name in files(store.directory))
    assert await names(store) == {record(1).name}


async def test_sweeps_start_automatically_and_survive_a_failing_store(tmp_path: Path) -> None:
    swept = asyncio.Event()

    class Failing(LocalPictures):
        def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
            swept.set()
            raise PictureNotStored("The disk fails.")

    retention = Retention(Failing(tmp_path), 60)
    retention.start()
    await asyncio.wait_for(swept.wait(), PATIENCE)
    await retention.close()
    await Retention(Failing(tmp_path), 60).close()


async def test_automatic_removals_are_logged(store: LocalPictures) -> None:
    await store.put(b"abc", record(1, created=100))
    with capture_logs() as logs:
        retention = Retention(store, 60)
        retention.start()
        async with asyncio.timeout(PATIENCE):
            while not logs:
                await asyncio.to_thread(files, store.directory)
        await retention.close()
    assert [(log["event"], log["pictures"]) for log in logs] == [("pictures_removed", 1)]
