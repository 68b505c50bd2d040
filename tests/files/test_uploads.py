"""Uploads of files to Dify, and reads of URLs, with a demo Dify and a state in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from openai_dify_proxy.errors import InvalidRequest, UpstreamUnreachable
from openai_dify_proxy.files.fetching import UrlFiles
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.files.uploads import EXTRA_UPLOADS, Destination, FileUploads, KnownCopies
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.translate.dify.file_plan import FilePlan, PlacedFile
from openai_dify_proxy.translate.dify.file_rules import FileRules
from openai_dify_proxy.translate.turn_request import FileContents, SentFile
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.wire.dify import SystemParameters
from openai_dify_proxy_demo import DemoServer
from tests.files.artifact_services import artifacts_in
from tests.limits import PATIENCE
from tests.upstream.raw_server import by_path, moved, raw_server, reply
from tests.upstream.test_fetch import PUBLIC, guarded_fetcher

PNG = b"\x89PNG\r\n\x1a\n and more"
IMAGES = FileRules(frozenset({"image"}), remote=False)
SECRET = b"secret"


@dataclass
class Setup:
    uploads: FileUploads
    stored: StoredFiles
    demo: DemoServer

    def destination(self, **changes: Any) -> Destination:
        until = asyncio.get_running_loop().time() + PATIENCE
        app = DifyApp(self.demo.url, "app-demo-chat")
        copies = KnownCopies()
        return structs.replace(Destination(app, "anna", "caller", SystemParameters(), SECRET, until, copies), **changes)

    def uploaded(self) -> int:
        return sum(request.path == "/v1/files/upload" for request in self.demo.log.requests)


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


@pytest.fixture
async def setup(demo: DemoServer, tmp_path: Path) -> AsyncIterator[Setup]:
    demo.log.clear()
    store = GuardedStore(MemoryStore(max_entries=1000))

    async def secret() -> bytes:
        return SECRET

    http = HttpClient(connect_timeout=PATIENCE)
    urls = UrlFiles(PATIENCE, Network(), guarded_fetcher(PATIENCE))
    stored = StoredFiles(store, secret, ttl=60, now=lambda: 0.0, limit=2)
    dify = DifyClient(http)
    artifacts = artifacts_in(tmp_path, store, secret, dify, lambda: 0.0)
    yield Setup(FileUploads(dify, store, urls, stored, artifacts, max_bytes=1000), stored, demo)
    await urls.close()
    await http.close()


def data_file(digest: str = "d") -> SentFile:
    return SentFile("image", "a", "png", "image/png", len(PNG), digest, param="at a")


def contents(*digests: str) -> FileContents:
    held = FileContents()
    for digest in digests:
        held.add(digest, PNG + digest.encode())
    return held


def plan(*files: SentFile, new: bool = True, rules: FileRules = IMAGES) -> FilePlan:
    return FilePlan(tuple(PlacedFile(file, None, "image", rules, new) for file in files))


async def test_equal_contents_are_uploaded_once_for_a_user_and_key(setup: Setup) -> None:
    first = await setup.uploads.place(plan(data_file()), contents("d"), setup.destination())
    again = await setup.uploads.place(plan(data_file()), None, setup.destination())
    assert first.references() == again.references()
    assert setup.uploaded() == 1
    other_user = await setup.uploads.place(plan(data_file()), contents("d"), setup.destination(user="bert"))
    other_app = DifyApp(setup.demo.url, "app-demo-agent-chat")
    in_other_app = await setup.uploads.place(plan(data_file()), contents("d"), setup.destination(app=other_app))
    assert setup.uploaded() == 3
    ids = {found.references()[0].upload_file_id for found in (first, other_user, in_other_app)}
    assert len(ids) == 3


async def test_without_the_state_every_turn_uploads(setup: Setup) -> None:
    destination = setup.destination(secret=None)
    for _ in range(2):
        await setup.uploads.place(plan(data_file()), contents("d"), destination)
    assert setup.uploaded() == 2


async def test_several_files_keep_their_order(setup: Setup) -> None:
    digests = [str(number) for number in range(8)]
    placed = await setup.uploads.place(plan(*map(data_file, digests)), contents(*digests), setup.destination())
    stored = setup.demo.app.state.demo.uploads
    sizes = [stored[reference.upload_file_id].described for reference in placed.references()]
    assert len(set(sizes)) == 8
    again = await setup.uploads.place(plan(*map(data_file, digests)), None, setup.destination())
    assert again.references() == placed.references()


async def test_uploads_of_several_turns_share_the_extra_connection(setup: Setup) -> None:
    open_now, most = 0, 0
    count = 6

    async def answer(_request: object, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        for _ in range(5):
            await asyncio.sleep(0)
        open_now -= 1
        writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{"id":"1"}')

    async with raw_server(answer) as server:
        destination = setup.destination(app=DifyApp(f"{server.origin}/v1", "app-x"))
        digests = [f"{turn}{number}" for turn in range(3) for number in range(count)]
        turns = [digests[begin : begin + count] for begin in range(0, len(digests), count)]
        await asyncio.gather(
            *(setup.uploads.place(plan(*map(data_file, turn)), contents(*turn), destination) for turn in turns)
        )
    assert len(server.requests) == len(digests)
    assert most <= len(turns) + EXTRA_UPLOADS


async def test_a_missing_content_of_a_new_file_is_an_error(setup: Setup) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await setup.uploads.place(plan(data_file()), contents(), setup.destination())
    assert (caught.value.code, caught.value.param) == ("file_not_found", "at a")


async def test_a_missing_content_of_an_earlier_file_leaves_it_out(setup: Setup) -> None:
    placed = await setup.uploads.place(plan(data_file("x"), new=False), contents(), setup.destination())
    assert placed.references() == []


async def test_an_unreachable_dify_fails_the_turn(setup: Setup) -> None:
    app = DifyApp("http://127.0.0.1:9/v1", "app-x")
    with pytest.raises(UpstreamUnreachable):
        await setup.uploads.place(plan(data_file()), contents("d"), setup.destination(app=app))


async def test_an_error_of_dify_names_the_file(setup: Setup) -> None:
    body = b'{"code":"file_too_large","message":"File size exceeded.","status":413}'
    async with raw_server(reply(413, body)) as server:
        app = DifyApp(f"{server.origin}/v1", "app-x")
        with pytest.raises(Exception, match="too large") as caught:
            await setup.uploads.place(plan(data_file()), contents("d"), setup.destination(app=app))
    assert getattr(caught.value, "param", None) == "at a"


@pytest.mark.parametrize("answer", [b"{}", b"not JSON"])
async def test_an_unreadable_answer_is_an_error(setup: Setup, answer: bytes) -> None:
    async with raw_server(reply(201, answer)) as server:
        app = DifyApp(f"{server.origin}/v1", "app-x")
        with pytest.raises(Exception, match="cannot be read"):
            await setup.uploads.place(plan(data_file()), contents("d"), setup.destination(app=app))


# URLs


def at_url(url: str) -> SentFile:
    return SentFile("image", "photo", "jpg", url=url, param="at url")


async def test_a_url_is_read_where_the_app_takes_uploads_only(setup: Setup) -> None:
    async with raw_server(by_path({"/a": moved("/b"), "/b": reply(200, PNG)}), PUBLIC) as server:
        placed = await setup.uploads.place(plan(at_url(f"{server.origin}/a")), None, setup.destination())
    (reference,) = placed.references()
    stored = setup.demo.app.state.demo.uploads[reference.upload_file_id]
    assert (stored.name, stored.described.partition(",")[0]) == ("photo.png", "image/png")
    assert placed.included == {f"{server.origin}/a"}


@pytest.mark.parametrize("data", [b"%PDF-1.7", b"<html>Not found</html>", b"x" * 2000])
async def test_a_url_of_another_type_or_size_is_rejected(setup: Setup, data: bytes) -> None:
    async with raw_server(reply(200, data), PUBLIC) as server:
        with pytest.raises(InvalidRequest) as caught:
            await setup.uploads.place(plan(at_url(f"{server.origin}/a")), None, setup.destination())
    assert caught.value.param == "at url"
    assert setup.uploaded() == 0


async def test_earlier_urls_are_read_even_if_the_app_takes_urls(setup: Setup) -> None:
    rules = FileRules(frozenset({"image"}))
    async with raw_server(reply(200, PNG), PUBLIC) as server:
        url = f"{server.origin}/a"
        placed = await setup.uploads.place(plan(at_url(url), new=False, rules=rules), None, setup.destination())
    assert placed.references()[0].transfer_method == "local_file"
    with pytest.raises(InvalidRequest):
        await setup.uploads.place(plan(at_url(url), rules=rules), None, setup.destination())
    public = "https://example.org/a.jpg"
    passed = await setup.uploads.place(plan(at_url(public), rules=rules), None, setup.destination())
    assert passed.references()[0].url == public


async def test_urls_have_a_common_time_limit(setup: Setup) -> None:
    async with raw_server(reply(200, PNG), PUBLIC) as server:
        with pytest.raises(InvalidRequest, match="took longer than 20 s"):
            await setup.uploads.place(plan(at_url(f"{server.origin}/a")), None, setup.destination(fetch_until=0.0))


async def test_an_app_that_takes_urls_only_takes_no_data(setup: Setup) -> None:
    rules = FileRules(frozenset({"image"}), local=False)
    with pytest.raises(InvalidRequest) as caught:
        await setup.uploads.place(plan(data_file(), rules=rules), contents("d"), setup.destination())
    assert caught.value.code == "unsupported_file_type"


# Stored files


async def test_a_stored_file_belongs_to_its_caller(setup: Setup) -> None:
    record = await setup.stored.add("caller", "a.png", "vision", "", PNG)
    assert await setup.stored.find("other", record.name) is None
    named = SentFile("image", file_id=record.name, param="at id")
    file = await setup.stored.resolve("caller", named, required=True)
    placed = await setup.uploads.place(plan(file), None, setup.destination())
    assert placed.references()[0].transfer_method == "local_file"
    with pytest.raises(InvalidRequest):
        await setup.uploads.place(plan(file), None, setup.destination(caller="other", user="bert"))
    with pytest.raises(InvalidRequest):
        await setup.stored.resolve("other", named, required=True)


async def test_a_caller_has_a_limited_number_of_files(setup: Setup) -> None:
    records = [await setup.stored.add("caller", f"{number}.txt", "user_data", "", b"x") for number in range(2)]
    with pytest.raises(InvalidRequest) as caught:
        await setup.stored.add("caller", "3.txt", "user_data", "", b"x")
    assert caught.value.code == "too_many_files"
    await setup.stored.add("other", "3.txt", "user_data", "", b"x")
    await setup.stored.remove("caller", records[0])
    await setup.stored.add("caller", "3.txt", "user_data", "", b"x")
    assert [record.filename for record in await setup.stored.all("caller")] != []
