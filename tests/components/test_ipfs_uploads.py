"""Background uploads: nodes that die and restart, killed processes, and concurrent processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterator
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
    """Create a node that the test starts and may stop."""
    ipfs = IpfsNode(node, parts.ipfs_node(), tmp_path / "ipfs")
    yield ipfs
    ipfs.kill()


def picture(number: int) -> bytes:
    return encode(image("RGB", (40, 30 + number)), "PNG")


async def put(store: PictureStore, number: int = 0) -> PictureRecord:
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    return (await writer.store(picture(number), PictureFacts(created=1))).record


@asynccontextmanager
async def uploads_to(
    url: str, store: PictureStore, *, timeout: float = PATIENCE, first_delay: float = 0.02
) -> AsyncIterator[IpfsUploads]:
    """Run uploads as a process of the proxy does, from its start to its end."""
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


async def until_pending(store: PictureStore, names: Collection[str]) -> None:
    """Wait until only these pictures are pending: an upload is recorded shortly before its marker is removed."""
    async with asyncio.timeout(PATIENCE):
        while set(await store.pending()) != set(names):
            pass


async def on_node(ipfs: IpfsNode, cid: str | None) -> bytes:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        response = await http.post(f"{ipfs.rpc}/api/v0/cat", params={"arg": cid or "", "timeout": "5s"})
        return response.raise_for_status().content


async def test_a_stored_picture_is_uploaded(store: LocalPictures, shared_ipfs: IpfsNode) -> None:
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        record = await put(store)
        uploads.notify(record)
        sent = await uploads.wait(record, PATIENCE)
    assert sent == replace(record, ipfs="sent")
    assert await store.record(record.name) == sent
    await until_pending(store, [])
    assert await on_node(shared_ipfs, sent.cid) == await store.read(record.name)


async def test_an_uploaded_picture_is_not_uploaded_again(store: LocalPictures) -> None:
    async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
        sent = await uploads.wait(await put(store), PATIENCE)
        again = await put(store)
        assert again == sent
        assert await uploads.wait(again, PATIENCE) == sent
        assert await uploads.upload(again.name) == sent
        assert len(node.uploads) == 1


async def test_the_cid_of_the_node_is_stored_and_the_difference_logged(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
            record = await put(store)
            sent = await uploads.wait(record, PATIENCE)
    assert sent.cid == OTHER_CID
    (differs,) = [log for log in logs if log["event"] == "ipfs_cid_differed"]
    assert (differs["computed"], differs["returned"]) == (record.cid, OTHER_CID)


async def test_ten_pictures_wait_for_a_node_that_is_down(store: LocalPictures, own_ipfs: IpfsNode) -> None:
    """They also wait for a restart of the proxy."""
    records = []
    async with uploads_to(own_ipfs.rpc, store) as uploads:
        for number in range(10):
            records.append(await put(store, number))
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
    await until_pending(store, [])


async def test_an_upload_cut_by_a_dying_node_is_repeated(store: LocalPictures, own_ipfs: IpfsNode) -> None:
    await asyncio.to_thread(own_ipfs.start)
    noise = encode(image("RGB", (8, 8)).resize((900, 900)), "PNG", compress_level=0)
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    async with relay(own_ipfs.rpc, hold_after=500_000) as paused, uploads_to(paused.url, store) as uploads:
        record = (await writer.store(noise, PictureFacts(created=1))).record
        await paused.wait()
        await asyncio.to_thread(own_ipfs.kill)
        paused.release()
        with pytest.raises(IpfsPending):
            await uploads.wait(record, 0.5)
        assert await store.pending() == [record.name]
        await asyncio.to_thread(own_ipfs.start)
        sent = await uploads.wait(record, PATIENCE)
    assert await on_node(own_ipfs, sent.cid) == noise
    assert sent.cid == compute_cid(noise)


WRITER = """
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

async def write(directory: str, url: str) -> None:
    configure_logging("critical")
    store = LocalPictures(directory)
    uploads = IpfsUploads(store, IpfsClient(HttpClient(connect_timeout=5), url + "/api/v0/add"))
    uploads.start()
    writer = PictureWriter(store, limit=10_000_000, ipfs=True)
    for number in range(10):
        stored = await writer.store(picture(number), PictureFacts(created=1))
        uploads.notify(stored.record)
        print(stored.record.name, flush=True)
    await asyncio.Event().wait()

asyncio.run(write(*sys.argv[1:]))
"""


async def test_a_process_killed_between_disk_and_ipfs_loses_nothing(
    store: LocalPictures, shared_ipfs: IpfsNode
) -> None:
    async with odd_ipfs(hang_up, silence) as node:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(store.directory), node.url, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        names = [(await process.stdout.readline()).decode().strip() for _ in range(10)]
        await node.wait_for_uploads(3)
        process.kill()
        await process.communicate()
    assert sorted(await store.pending()) == sorted(names)
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        for name in names:
            record = await store.record(name)
            assert record is not None
            sent = await uploads.wait(record, PATIENCE)
            assert await on_node(shared_ipfs, sent.cid) == await store.read(name)


ROOT = Path(__file__).parents[2]


async def test_one_of_several_processes_uploads_and_all_notice(store: LocalPictures) -> None:
    stores = [LocalPictures(store.directory) for _ in range(3)]
    async with odd_ipfs(added(OTHER_CID)) as node, AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(uploads_to(node.url, one)) for one in stores]
        records = [await put(stores[number % 3], number) for number in range(9)]
        for number, record in enumerate(records):
            workers[number % 3].notify(record)
        await asyncio.gather(*(workers[number % 3].wait(record, PATIENCE) for number, record in enumerate(records)))
        assert sorted(upload.file[1] for upload in node.uploads) == sorted(record.name for record in records)


async def test_another_process_continues_when_the_uploading_one_ends(store: LocalPictures) -> None:
    other = LocalPictures(store.directory)
    async with odd_ipfs(silence, added(OTHER_CID)) as node:
        async with uploads_to(node.url, store):
            record = await put(store)
            await node.wait_for_uploads(1)
            second = uploads_to(node.url, other)
            waiting = await second.__aenter__()
            with pytest.raises(IpfsPending):
                await waiting.wait(record, 0.3)
        assert (await waiting.wait(record, PATIENCE)).ipfs == "sent"
        await second.__aexit__(None, None, None)
        assert len(node.uploads) == 2


async def test_attempts_become_less_frequent(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(*[answer("", "500 Oh")] * 4, added(OTHER_CID)) as node:
            store.rescan_seconds = 0.01
            async with uploads_to(node.url, store, first_delay=0.01) as uploads:
                record = await put(store)
                await node.wait_for_uploads(5)
                assert (await uploads.wait(record, PATIENCE)).ipfs == "sent"
    failures = [log for log in logs if log["event"] == "ipfs_upload_failed"]
    assert [log["attempts"] for log in failures] == [1, 2, 3, 4]
    assert [log["retry_in"] for log in failures] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert "Status 500" in failures[0]["reason"]


async def test_a_retry_after_of_the_node_is_honoured(store: LocalPictures) -> None:
    with capture_logs() as logs:
        async with odd_ipfs(answer("", "429 Slow", "Retry-After: 30")) as node, uploads_to(node.url, store) as uploads:
            with pytest.raises(IpfsPending):
                await uploads.wait(await put(store), PATIENCE)
    assert [log["retry_in"] for log in logs if log["event"] == "ipfs_upload_failed"] == [30]


async def test_a_permanent_rejection_ends_the_wait_at_once(store: LocalPictures) -> None:
    async with (
        odd_ipfs(answer("no", "401 Unauthorized")) as node,
        uploads_to(node.url, store, first_delay=PATIENCE) as uploads,
    ):
        with pytest.raises(IpfsPending) as caught:
            await uploads.wait(await put(store), PATIENCE)
        assert "401" in (caught.value.log or "")
        assert caught.value.started
        assert len(await store.pending()) == 1


async def test_failed_uploads_do_not_delay_new_pictures(store: LocalPictures) -> None:
    refused = [await put(store, number) for number in range(6)]
    bad = {record.name for record in refused}

    async def selective(upload: object, writer: asyncio.StreamWriter) -> None:
        name = upload.file[1]  # type: ignore[attr-defined]
        await (answer("", "500 Oh") if name in bad else added(OTHER_CID))(upload, writer)  # type: ignore[arg-type]

    async with odd_ipfs(selective) as node, uploads_to(node.url, store) as uploads:
        await node.wait_for_uploads(6)
        good = await put(store, 20)
        assert (await uploads.wait(good, PATIENCE)).cid == OTHER_CID
    await until_pending(store, bad)


async def test_a_picture_deleted_during_its_upload_stays_deleted(store: LocalPictures) -> None:
    record = await put(store)

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


class FailingOnce(LocalPictures):
    """A store that fails once in each way."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.failures = ["lease", "read"]

    async def take_lease(self) -> bool:
        if "lease" in self.failures:
            self.failures.remove("lease")
            raise PictureNotStored("The disk fails.", log="a reason")
        return await super().take_lease()

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        if "read" in self.failures:
            self.failures.remove("read")
            raise RuntimeError("a bug")
        return await super().read(name, start, end)


async def test_uploads_survive_store_failures_and_bugs(tmp_path: Path) -> None:
    store = FailingOnce(tmp_path)
    with capture_logs() as logs:
        async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
            record = await put(store)
            with pytest.raises(IpfsPending):
                await uploads.wait(record, PATIENCE)
            assert (await uploads.wait(record, PATIENCE)).ipfs == "sent"
    events = [log["event"] for log in logs]
    assert {"ipfs_upload_postponed", "ipfs_upload_crashed"} <= set(events)


async def test_a_marker_without_a_record_is_removed(store: LocalPictures) -> None:
    """A process that is killed between writing the marker and writing the record leaves one."""
    record = await put(store)
    await asyncio.to_thread((store.directory / record.sha256[:2] / record.sha256[2:4] / f"{record.sha256}.json").unlink)
    async with odd_ipfs(added(OTHER_CID)) as node, uploads_to(node.url, store) as uploads:
        other = await put(store, 1)
        await uploads.wait(other, PATIENCE)
        await until_pending(store, [])
        again = await put(store)
        assert (await uploads.wait(again, PATIENCE)).ipfs == "sent"


async def test_pictures_in_an_object_store_are_uploaded_too(s3_server: S3Server, shared_ipfs: IpfsNode) -> None:
    store = open_object_store(s3_server.url(f"tests/{token_hex(8)}"))
    record = await put(store)
    async with uploads_to(shared_ipfs.rpc, store) as uploads:
        sent = await uploads.wait(record, PATIENCE)
    assert await on_node(shared_ipfs, sent.cid) == await store.read(record.name)


async def test_closing_does_not_wait_for_a_node(store: LocalPictures) -> None:
    async with odd_ipfs(silence) as node:
        async with asyncio.timeout(PATIENCE):
            async with uploads_to(node.url, store):
                await put(store)
                await node.wait_for_uploads(1)
        assert len(await store.pending()) == 1
        assert isinstance(node, OddIpfs)
