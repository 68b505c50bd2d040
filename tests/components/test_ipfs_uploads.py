"""Uploads behind the answers: nodes that die and come back, processes that are killed, several processes at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from openai_dify_proxy.errors import IpfsPending, NotFound, PictureNotStored
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.objects import open_object_store
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.translate.pictures.ipfs_cid import compute_cid
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from tests import parts
from tests.components.odd_ipfs import OddIpfs, added, answer, hang_up, odd_ipfs, relay, silence
from tests.components.servers import IpfsNode, S3Server
from tests.limits import PATIENCE
from tests.pictures.samples import encode, image

OTHER_CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


@pytest.fixture
def store(tmp_path: Path) -> LocalPictures:
    return LocalPictures(tmp_path / "pictures")


@pytest.fixture
def own_ipfs(node: Path, tmp_path: Path) -> Iterator[IpfsNode]:
    """A node that the test may stop; it does not run yet."""
    ipfs = IpfsNode(node, parts.ipfs_node(), tmp_path / "ipfs")
    yield ipfs
    ipfs.kill()


def picture(number: int) -> bytes:
    return encode(image("RGB", (40, 30 + number)), "PNG")


async def keep(store: PictureStore, number: int = 0) -> PictureRecord:
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    return (await writer.store(picture(number), PictureFacts(created=1))).record


@asynccontextmanager
async def uploads_to(
    url: str, store: PictureStore, *, timeout: float = PATIENCE, first_delay: float = 0.02
) -> AsyncIterator[IpfsUploads]:
    """As a process of the proxy has them, from its start to its end."""
    http = HttpClient(connect_timeout=PATIENCE)
    client = IpfsClient(http, f"{url}/api/v0/add", timeout=timeout)
    uploads = IpfsUploads(store, client, first_delay=first_delay)
    uploads.start()
    try:
        yield uploads
    finally:
        await uploads.close()
        await store.close()
        await http.close()


async def on_node(ipfs: IpfsNode, cid: str | None) -> bytes:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        answered = await http.post(f"{ipfs.rpc}/api/v0/cat", params={"arg": cid or "", "timeout": "5s"})
        return answered.raise_for_status().content


async def test_what_is_kept_is_sent(store: LocalPictures, shared_ipfs: IpfsNode) -> None:
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        record = await keep(store)
        uploads.notify(record)
        sent = await uploads.wait(record, PATIENCE)
    assert sent == replace(record, ipfs="sent")
    assert await store.record(record.name) == sent
    assert await store.pending() == []
    assert await on_node(shared_ipfs, sent.cid) == await store.read(record.name)


async def test_what_was_sent_is_not_sent_again(store: LocalPictures) -> None:
    async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
        sent = await uploads.wait(await keep(store), PATIENCE)
        again = await keep(store)
        assert again == sent
        assert await uploads.wait(again, PATIENCE) == sent
        assert await uploads.upload(again.name) == sent
        assert len(node.uploads) == 1


async def test_the_cid_that_the_node_tells_is_kept_and_the_difference_logged(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
            record = await keep(store)
            sent = await uploads.wait(record, PATIENCE)
    assert sent.cid == OTHER_CID
    (told,) = [log for log in logs if log["event"] == "ipfs_cid_differed"]
    assert (told["computed"], told["returned"]) == (record.cid, OTHER_CID)


async def test_ten_pictures_wait_for_a_node_that_is_down(store: LocalPictures, own_ipfs: IpfsNode) -> None:
    """And for a process that was started again meanwhile."""
    records = []
    async with uploads_to(own_ipfs.rpc, store) as uploads:
        for number in range(10):
            records.append(await keep(store, number))
            uploads.notify(records[-1])
        with pytest.raises(IpfsPending):
            await uploads.wait(records[0], 0.2)
    assert sorted(await store.pending()) == sorted(record.name for record in records)
    await asyncio.to_thread(own_ipfs.start)
    async with uploads_to(own_ipfs.rpc, LocalPictures(store.directory)) as uploads:
        for record in records:
            sent = await uploads.wait(record, PATIENCE)
            assert sent == replace(record, ipfs="sent")
            assert await on_node(own_ipfs, sent.cid) == await store.read(record.name)
    assert await store.pending() == []


async def test_a_node_that_dies_within_an_upload_gets_it_again(store: LocalPictures, own_ipfs: IpfsNode) -> None:
    await asyncio.to_thread(own_ipfs.start)
    noise = encode(image("RGB", (8, 8)).resize((900, 900)), "PNG", compress_level=0)
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    async with relay(own_ipfs.rpc, hold_after=500_000) as held, uploads_to(held.url, store) as uploads:
        record = (await writer.store(noise, PictureFacts(created=1))).record
        await held.wait()
        await asyncio.to_thread(own_ipfs.kill)
        held.release()
        with pytest.raises(IpfsPending):
            await uploads.wait(record, 0.5)
        assert await store.pending() == [record.name]
        await asyncio.to_thread(own_ipfs.start)
        sent = await uploads.wait(record, PATIENCE)
    assert await on_node(own_ipfs, sent.cid) == noise
    assert sent.cid == compute_cid(noise)


KEEPER = """
import asyncio, sys
from pathlib import Path
from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from openai_dify_proxy.telemetry import configure_logging
from tests.components.test_ipfs_uploads import picture

async def keep(directory: str, url: str) -> None:
    configure_logging("critical")
    store = LocalPictures(directory)
    uploads = IpfsUploads(store, IpfsClient(HttpClient(connect_timeout=5), url + "/api/v0/add"))
    uploads.start()
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    for number in range(10):
        kept = await writer.store(picture(number), PictureFacts(created=1))
        uploads.notify(kept.record)
        print(kept.record.name, flush=True)
    await asyncio.Event().wait()

asyncio.run(keep(*sys.argv[1:]))
"""


async def test_a_process_killed_between_disk_and_ipfs_loses_nothing(
    store: LocalPictures, shared_ipfs: IpfsNode
) -> None:
    async with odd_ipfs(hang_up, silence) as node:
        keeper = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KEEPER, str(store.directory), node.url, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert keeper.stdout is not None
        names = [(await keeper.stdout.readline()).decode().strip() for _ in range(10)]
        await node.came(3)
        keeper.kill()
        await keeper.communicate()
    assert sorted(await store.pending()) == sorted(names)
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        for name in names:
            record = await store.record(name)
            assert record is not None
            sent = await uploads.wait(record, PATIENCE)
            assert await on_node(shared_ipfs, sent.cid) == await store.read(name)


ROOT = Path(__file__).parents[2]


async def test_of_several_processes_one_sends_and_all_notice(store: LocalPictures) -> None:
    stores = [LocalPictures(store.directory) for _ in range(3)]
    async with odd_ipfs(added(OTHER_CID)) as node, AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(uploads_to(node.url, one)) for one in stores]
        records = [await keep(stores[number % 3], number) for number in range(9)]
        for number, record in enumerate(records):
            workers[number % 3].notify(record)
        await asyncio.gather(*(workers[number % 3].wait(record, PATIENCE) for number, record in enumerate(records)))
        assert sorted(upload.file[1] for upload in node.uploads) == sorted(record.name for record in records)


async def test_the_next_process_goes_on_when_the_sender_ends(store: LocalPictures) -> None:
    other = LocalPictures(store.directory)
    async with odd_ipfs(silence, added(OTHER_CID)) as node:
        async with uploads_to(node.url, store):
            record = await keep(store)
            await node.came(1)
            second = uploads_to(node.url, other)
            waiting = await second.__aenter__()
            with pytest.raises(IpfsPending):
                await waiting.wait(record, 0.3)
        assert (await waiting.wait(record, PATIENCE)).ipfs == "sent"
        await second.__aexit__(None, None, None)
        assert len(node.uploads) == 2


async def test_tries_come_less_and_less_often(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(*[answer("", "500 Oh")] * 4, added(OTHER_CID)) as node:
            store.rescan_seconds = 0.01
            async with uploads_to(node.url, store, first_delay=0.01) as uploads:
                record = await keep(store)
                await node.came(5)
                assert (await uploads.wait(record, PATIENCE)).ipfs == "sent"
    failures = [log for log in logs if log["event"] == "ipfs_upload_failed"]
    assert [log["attempts"] for log in failures] == [1, 2, 3, 4]
    assert [log["retry_in"] for log in failures] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert "Status 500" in failures[0]["reason"]


async def test_a_node_may_tell_when_to_come_again(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(answer("", "429 Slow", "Retry-After: 30")) as node, uploads_to(node.url, store) as uploads:
            with pytest.raises(IpfsPending):
                await uploads.wait(await keep(store), PATIENCE)
    assert [log["retry_in"] for log in logs if log["event"] == "ipfs_upload_failed"] == [30]


async def test_whoever_waits_is_told_at_once_of_a_refusal_that_will_not_pass(store: LocalPictures) -> None:
    async with (
        odd_ipfs(answer("no", "401 Unauthorized")) as node,
        uploads_to(node.url, store, first_delay=PATIENCE) as uploads,
    ):
        with pytest.raises(IpfsPending) as caught:
            await uploads.wait(await keep(store), PATIENCE)
        assert "401" in (caught.value.log or "")
        assert caught.value.started
        assert len(await store.pending()) == 1


async def test_new_pictures_do_not_stand_behind_those_that_failed(store: LocalPictures) -> None:
    refused = [await keep(store, number) for number in range(6)]
    bad = {record.name for record in refused}

    async def choosy(upload: object, writer: asyncio.StreamWriter) -> None:
        name = upload.file[1]  # type: ignore[attr-defined]
        await (answer("", "500 Oh") if name in bad else added(OTHER_CID))(upload, writer)  # type: ignore[arg-type]

    async with odd_ipfs(choosy) as node, uploads_to(node.url, store) as uploads:
        await node.came(6)
        good = await keep(store, 20)
        assert (await uploads.wait(good, PATIENCE)).cid == OTHER_CID
    assert set(await store.pending()) == bad


async def test_a_picture_deleted_while_it_is_sent_stays_deleted(store: LocalPictures) -> None:
    record = await keep(store)

    async def deleting(upload: object, writer: asyncio.StreamWriter) -> None:
        await store.delete(record.name)
        await added(OTHER_CID)(upload, writer)  # type: ignore[arg-type]

    async with odd_ipfs(deleting) as node:
        http = HttpClient(connect_timeout=PATIENCE)
        uploads = IpfsUploads(store, IpfsClient(http, node.url))
        await uploads.upload(record.name)
        assert await store.record(record.name) is None
        with pytest.raises(NotFound):
            await uploads.upload(record.name)
        await http.close()


class Moody(LocalPictures):
    """Fails in every way once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.moods = ["lease", "read"]

    async def take_lease(self) -> bool:
        if "lease" in self.moods:
            self.moods.remove("lease")
            raise PictureNotStored("The disk fails.", log="a reason")
        return await super().take_lease()

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        if "read" in self.moods:
            self.moods.remove("read")
            raise RuntimeError("a mistake")
        return await super().read(name, start, end)


async def test_uploads_survive_a_store_that_fails_and_mistakes_of_our_own(tmp_path: Path) -> None:
    store = Moody(tmp_path)
    with capture_logs() as logs:
        async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
            record = await keep(store)
            with pytest.raises(IpfsPending):
                await uploads.wait(record, PATIENCE)
            assert (await uploads.wait(record, PATIENCE)).ipfs == "sent"
    events = [log["event"] for log in logs]
    assert {"ipfs_upload_postponed", "ipfs_upload_crashed", "picture_uploaded"} <= set(events)


async def test_a_marker_without_a_picture_harms_nothing(store: LocalPictures) -> None:
    """A process was killed after it had marked a picture and before it had written the record."""
    record = await keep(store)
    await asyncio.to_thread((store.directory / record.sha256[:2] / record.sha256[2:4] / f"{record.sha256}.json").unlink)
    async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
        other = await keep(store, 1)
        await uploads.wait(other, PATIENCE)
        assert record.name not in await store.pending(), "it is not looked at for ever"
        again = await keep(store)
        assert (await uploads.wait(again, PATIENCE)).ipfs == "sent"


async def test_pictures_in_an_object_store_are_sent_too(s3_server: S3Server, shared_ipfs: IpfsNode) -> None:
    store = open_object_store(s3_server.url(f"tests/{token_hex(8)}"))
    record = await keep(store)
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        sent = await uploads.wait(record, PATIENCE)
    assert await on_node(shared_ipfs, sent.cid) == await store.read(record.name)


async def test_closing_does_not_wait_for_a_node(store: LocalPictures) -> None:
    async with odd_ipfs(silence) as node:
        async with asyncio.timeout(PATIENCE):
            async with uploads_to(node.url, store):
                await keep(store)
                await node.came(1)
        assert len(await store.pending()) == 1
        assert isinstance(node, OddIpfs)
