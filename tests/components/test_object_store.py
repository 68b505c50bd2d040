"""Store pictures in a real S3 server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from secrets import token_hex

import httpx2
import pytest

from openai_dify_proxy.errors import PictureNotStored
from openai_dify_proxy.pictures.objects import LEASE_SECONDS, ORPHAN_SECONDS, ObjectPictures, open_object_store
from tests.components.servers import S3Server
from tests.pictures.contract import StoreContract, record


@pytest.fixture
def prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"tests/{token_hex(8)}"


@pytest.fixture
async def store(s3_server: S3Server, prefix: str) -> AsyncIterator[ObjectPictures]:
    objects = open_object_store(s3_server.url(prefix))
    yield objects
    await objects.close()


@pytest.fixture
async def other(s3_server: S3Server, prefix: str) -> AsyncIterator[ObjectPictures]:
    objects = open_object_store(s3_server.url(prefix))
    yield objects
    await objects.close()


class TestS3(StoreContract):
    pass


async def test_clients_can_be_redirected_to_a_signed_link(s3_server: S3Server, prefix: str) -> None:
    store = open_object_store(s3_server.url(prefix, serve="redirect"))
    await store.put(b"abc", record(1))
    link = await store.signed_link(record(1).name)
    assert link is not None
    assert link.startswith(f"{s3_server.endpoint}/pictures/{prefix}/00/00/{record(1).name}?")
    async with httpx2.AsyncClient() as http:
        answer = await http.get(link)
        assert (answer.status_code, answer.content) == (200, b"abc")
        assert answer.headers["content-type"] == "image/png"
        assert "immutable" in answer.headers["cache-control"]
        assert (await http.get(link.partition("?")[0])).status_code == 403, "objects are not public"


async def test_without_redirects_there_is_no_signed_link(store: ObjectPictures) -> None:
    assert await store.signed_link(record(1).name) is None


async def test_pictures_under_other_prefixes_are_invisible(s3_server: S3Server, store: ObjectPictures) -> None:
    await store.put(b"abc", record(1))
    elsewhere = open_object_store(s3_server.url(f"tests/{token_hex(8)}"))
    assert await elsewhere.record(record(1).name) is None
    assert [one async for one in elsewhere.records()] == []


async def test_only_records_before_the_given_time_are_listed(store: ObjectPictures) -> None:
    await store.put(b"abc", record(1, created=100))
    assert [one.name async for one in store.records(before=time.time() + 60)] == [record(1).name]
    assert [one async for one in store.records(before=time.time() - 60)] == []
    assert [one async for one in store.records(before=50)] == []


async def test_a_picture_without_a_record_is_removed_once_no_writer_can_be_active(
    s3_server: S3Server, prefix: str, store: ObjectPictures
) -> None:
    await store.put(b"abc", record(1, ipfs="pending"))
    await store._delete(f"00/00/{record(1).sha256}.json")
    assert [name async for name in store.orphans()] == [record(1).name]
    assert not await store.remove_orphan(record(1).name)
    later = open_object_store(s3_server.url(prefix), clock=lambda: time.time() + ORPHAN_SECONDS + 10)
    assert await later.remove_orphan(record(1).name)
    assert [name async for name in store.orphans()] == await store.pending() == []


async def test_a_picture_of_several_megabytes(store: ObjectPictures) -> None:
    data = bytes(range(256)) * 40_000
    await store.put(data, record(1, size=len(data)))
    assert await store.read(record(1).name) == data


async def test_an_expired_lease_can_be_taken(s3_server: S3Server, prefix: str, store: ObjectPictures) -> None:
    later = open_object_store(s3_server.url(prefix), clock=lambda: time.time() + LEASE_SECONDS + 1)
    assert await store.take_lease()
    assert await later.take_lease()
    assert not await open_object_store(s3_server.url(prefix)).take_lease()


async def test_a_lease_is_renewed_by_its_holder(s3_server: S3Server, prefix: str) -> None:
    now = time.time()
    store = open_object_store(s3_server.url(prefix), clock=lambda: now)
    for _ in range(4):
        assert await store.take_lease()
        now += LEASE_SECONDS / 2
    assert not await open_object_store(s3_server.url(prefix)).take_lease()


async def test_a_lease_of_an_unknown_kind_is_replaced(store: ObjectPictures, other: ObjectPictures) -> None:
    await store.take_lease()
    await store._write("ipfs.lease", b"?")
    assert await other.take_lease()


@pytest.mark.parametrize("options", [{"secret_key": "wrong"}, {"endpoint": "http://127.0.0.1:9"}])
async def test_a_rejected_request_raises_an_error(s3_server: S3Server, prefix: str, options: dict[str, str]) -> None:
    store = open_object_store(s3_server.url(prefix, **options))
    with pytest.raises(PictureNotStored) as caught:
        await store.put(b"abc", record(1))
    assert "127.0.0.1" not in caught.value.message
    assert "only-for-tests" not in (caught.value.log or "")
    with pytest.raises(PictureNotStored):
        await store.record(record(1).name)
    with pytest.raises(PictureNotStored):
        await store.pending()
    with pytest.raises(PictureNotStored):
        await store.take_lease()
    await store.close()
