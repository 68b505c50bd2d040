"""The contract of picture stores; each store runs all of these tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from openai_dify_proxy.errors import NotFound
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.store import PictureStore

DIGEST = "ab12" + "0" * 60
FOREIGN_NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    f"../{DIGEST}.png",
    f"{DIGEST}.json",
    f"{DIGEST}.svg",
    f"{DIGEST}",
    f"{DIGEST.upper()}.png",
    f"{DIGEST}.png\n",
    f"{DIGEST}.png/..",
    f"/{DIGEST}.png",
    f"{DIGEST[:-1]}.png",
    "ipfs.lock",
    "ipfs.lease",
    "\0",
]


def record(number: int = 0, **more: object) -> PictureRecord:
    fields = {"sha256": f"{number:064x}", "extension": "png", "media_type": "image/png", "size": 3}
    return msgspec.convert(fields | {"width": 2, "height": 1, "created": 100} | more, PictureRecord)


def files(directory: Path) -> set[str]:
    """Return the names of all files below ``directory``."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


class StoreContract:
    async def test_a_picture_is_returned_as_stored(self, store: PictureStore) -> None:
        expected = record(1, model="a/b", prediction_id="p", seed=7, prompt="a fox", cid="bafy", ipfs="pending")
        assert await store.put(b"abc", expected) == expected
        assert await store.read(expected.name) == b"abc"
        assert await store.record(expected.name) == expected

    async def test_an_existing_picture_stays_and_its_record_is_completed(self, store: PictureStore) -> None:
        await store.put(b"abc", record(1, model="a/b", created=100))
        again = await store.put(
            b"abc", record(1, model="c/d", prediction_id="p", seed=0, cid="bafy", ipfs="pending", created=200)
        )
        assert again == record(1, model="a/b", prediction_id="p", seed=0, cid="bafy", ipfs="pending", created=200)
        assert await store.record(again.name) == again
        assert await store.pending() == [again.name]

    async def test_a_sent_picture_stays_sent(self, store: PictureStore) -> None:
        await store.put(b"abc", record(1, cid="told", ipfs="pending"))
        await store.update(record(1).name, lambda _: record(1, cid="told", ipfs="sent"))
        again = await store.put(b"abc", record(1, cid="computed", ipfs="pending"))
        assert (again.ipfs, again.cid) == ("sent", "told")

    async def test_concurrent_writers_of_the_same_picture(self, store: PictureStore) -> None:
        stored = await asyncio.gather(*(store.put(b"abc" * 1000, record(1, seed=seed)) for seed in range(8)))
        assert await store.read(record(1).name) == b"abc" * 1000
        in_store = await store.record(record(1).name)
        assert in_store is not None
        assert {one.seed for one in stored} == {in_store.seed}

    async def test_missing_pictures_are_not_found(self, store: PictureStore) -> None:
        assert await store.record(record(1).name) is None
        with pytest.raises(NotFound):
            await store.read(record(1).name)
        assert not await store.delete(record(1).name)
        assert await store.update(record(1).name, lambda stored: stored) is None
        assert [one async for one in store.records()] == []
        assert await store.pending() == []

    async def test_another_extension_is_another_name(self, store: PictureStore) -> None:
        await store.put(b"abc", record(1))
        assert await store.record(record(1, extension="jpg").name) is None

    @pytest.mark.parametrize("name", FOREIGN_NAMES)
    async def test_invalid_names_are_not_found(self, store: PictureStore, name: str) -> None:
        await store.put(b"abc", record(1))
        assert await store.record(name) is None
        with pytest.raises(NotFound):
            await store.read(name)
        assert not await store.delete(name)
        assert await store.update(name, lambda stored: stored) is None
        assert await store.read(record(1).name) == b"abc"

    async def test_pending_lists_unsent_pictures(self, store: PictureStore) -> None:
        for number, ipfs in enumerate(("off", "pending", "pending")):
            await store.put(b"abc", record(number, ipfs=ipfs))
        assert sorted(await store.pending()) == [record(1).name, record(2).name]
        await store.update(record(1).name, lambda _: record(1, ipfs="sent"))
        assert await store.pending() == [record(2).name]
        await store.update(record(0).name, lambda _: record(0, ipfs="pending"))
        assert sorted(await store.pending()) == [record(0).name, record(2).name]

    async def test_a_deleted_picture_leaves_nothing(self, store: PictureStore) -> None:
        await store.put(b"abc", record(1, ipfs="pending"))
        await store.put(b"abc", record(2))
        assert await store.delete(record(1).name)
        assert await store.record(record(1).name) is None
        assert await store.pending() == []
        assert [one.name async for one in store.records()] == [record(2).name]

    async def test_only_old_pictures_that_are_not_pending_are_deleted(self, store: PictureStore) -> None:
        old, again, waiting = record(1), record(2, created=200), record(3, ipfs="pending")
        for one in (old, again, waiting):
            await store.put(b"abc", one)
        assert [await store.delete(one.name, before=150) for one in (old, again, waiting)] == [True, False, False]
        assert {one async for one in store.records()} == {again, waiting}
        assert await store.pending() == [waiting.name]

    async def test_no_concurrent_change_is_lost(self, store: PictureStore, other: PictureStore) -> None:
        await store.put(b"abc", record(1, created=0))

        def newer(record: PictureRecord) -> PictureRecord:
            return msgspec.structs.replace(record, created=record.created + 1)

        await asyncio.gather(*(place.update(record(1).name, newer) for place in (store, other) * 4))
        stored = await store.record(record(1).name)
        assert stored is not None
        assert stored.created == 8

    async def test_part_of_a_picture_is_read(self, store: PictureStore) -> None:
        await store.put(b"abcdef", record(1, size=6))
        assert await store.read(record(1).name, 1, 3) == b"bc"
        assert await store.read(record(1).name, 4) == b"ef"
        with pytest.raises(NotFound):
            await store.read(record(2).name, 1, 3)

    async def test_a_picture_with_a_record_is_no_orphan(self, store: PictureStore) -> None:
        await store.put(b"abc", record(1))
        assert [name async for name in store.orphans()] == []
        assert not await store.remove_orphan(record(1).name)
        assert await store.read(record(1).name) == b"abc"

    async def test_all_records_are_listed(self, store: PictureStore) -> None:
        expected = {record(number << 240, created=number) for number in range(20)}
        for one in expected:
            await store.put(b"abc", one)
        assert {one async for one in store.records()} == expected

    async def test_only_one_store_holds_the_lease(self, store: PictureStore, other: PictureStore) -> None:
        """``other`` is the same store in another process."""
        await store.put(b"abc", record(1))
        assert await store.take_lease()
        assert await store.take_lease()
        assert not await other.take_lease()
        await store.close()
        assert await other.take_lease()
        assert not await store.take_lease()
        await other.close()
