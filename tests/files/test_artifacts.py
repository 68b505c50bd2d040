"""Artifacts on a real state, a real directory and a real Dify: names, leases, expiry and the limit of the storage."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openai_dify_proxy.errors import FileNotStored, NotFound, StateUnreachable, UpstreamFailed
from openai_dify_proxy.events import FileProduced
from openai_dify_proxy.files.artifacts.directory import LEFTOVER_SECONDS, DirectoryStorage
from openai_dify_proxy.files.artifacts.eraser import Eraser
from openai_dify_proxy.files.artifacts.fetches import LEASE_SECONDS
from openai_dify_proxy.files.artifacts.names import new_name, sign, text_in, verify
from openai_dify_proxy.files.artifacts.records import BUCKET_SECONDS
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.saying_dify import FILE, LINK
from tests.files.artifact_services import artifacts_in
from tests.limits import PATIENCE
from tests.upstream.raw_server import Answer, RawServer, by_path, in_turn, raw_server, reply

SECRET = bytes(range(32))


class Replicas:
    """Services of several processes over one state and one directory."""

    def __init__(self, directory: Path, dify: DifyClient, base_url: str) -> None:
        self.now = 1_795_000_000.0
        self.secret: bytes | None = SECRET
        self._directory = directory
        self._dify = dify
        self._store = GuardedStore(MemoryStore(max_entries=1000))
        self.base_url = base_url

    def start(self) -> Artifacts:
        async def secret() -> bytes | None:
            return self.secret

        return artifacts_in(self._directory, self._store, secret, self._dify, lambda: self.now)

    def produce(self, artifacts: Artifacts) -> str:
        """Return the link that replaces Dify's."""
        links = artifacts.links(self.base_url, "caller", "user", self.secret, lambda: "http://proxy.example/")
        assert links is not None
        (file,) = links.filter([FileProduced(LINK, "document", "report.txt")])
        assert isinstance(file, FileProduced)
        return file.url


@asynccontextmanager
async def replicas(directory: Path, file: Answer) -> AsyncIterator[tuple[Replicas, RawServer]]:
    async with raw_server(by_path({FILE: file})) as server:
        http = HttpClient(connect_timeout=PATIENCE)
        yield Replicas(directory, DifyClient(http), server.origin), server
        await http.close()


async def never(_request: object, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_any_process_serves_a_file(tmp_path: Path) -> None:
    async with replicas(tmp_path, reply(200, b"the report")) as (processes, server):
        link = processes.produce(processes.start())
        other = processes.start()
        assert await other.load(link, "caller", 100) == b"the report"
        artifact = await other.find(text_in(link) or "")
        assert (artifact.filename, artifact.media_type, artifact.inline) == ("report.txt", "text/plain", False)
        assert len(server.requests) == 1


async def test_a_dead_process_loses_its_fetch_to_another(tmp_path: Path) -> None:
    async with replicas(tmp_path, in_turn(never, reply(200, b"the report"))) as (processes, server):
        dying = processes.start()
        link = processes.produce(dying)
        await server.wait_for_requests(1)
        await dying._fetches.close()
        other = processes.start()
        reading = asyncio.create_task(other.load(link, "caller", 100))
        processes.now += LEASE_SECONDS + 1
        assert await reading == b"the report"
        assert len(server.requests) == 2


async def test_only_the_caller_whose_turn_produced_a_file_can_send_it_back(tmp_path: Path) -> None:
    async with replicas(tmp_path, reply(200, b"the report")) as (processes, _):
        artifacts = processes.start()
        link = processes.produce(artifacts)
        assert await artifacts.is_link(link)
        for caller, limit in (("another", 100), ("caller", 9)):
            with pytest.raises(NotFound):
                await artifacts.load(link, caller, limit)
        processes.now += 61
        assert await artifacts.is_link(link), "an expired link is still known"
        with pytest.raises(NotFound, match="has expired"):
            await artifacts.load(link, "caller", 100)


@pytest.mark.parametrize(
    "url", ["http://a/artifacts/x.png", "http://a/pictures/x.png", "ftp://a", "", "http://a/artifacts/"]
)
async def test_other_urls_are_no_links_of_ours(tmp_path: Path, url: str) -> None:
    async with replicas(tmp_path, reply(200, b"")) as (processes, _):
        artifacts = processes.start()
        assert not await artifacts.is_link(url)
        with pytest.raises(NotFound):
            await artifacts.load(url, "caller", 100)


async def test_without_the_state_links_stay_and_no_file_is_served(tmp_path: Path) -> None:
    async with replicas(tmp_path, reply(200, b"")) as (processes, _):
        artifacts = processes.start()
        link = processes.produce(artifacts)
        assert artifacts.links(processes.base_url, "caller", "user", None, lambda: "http://a") is None
        assert artifacts.links(processes.base_url, "caller", "user", SECRET, None) is None, "nobody knows the address"
        processes.secret = None
        with pytest.raises(StateUnreachable):
            await artifacts.find(text_in(link) or "")


async def test_a_file_that_vanished_from_the_storage_is_not_found(tmp_path: Path) -> None:
    async with replicas(tmp_path, reply(200, b"the report")) as (processes, _):
        artifacts = processes.start()
        link = processes.produce(artifacts)
        assert await artifacts.load(link, "caller", 100)
        for path in files_in(tmp_path):
            path.unlink()
        with pytest.raises(NotFound, match="has been removed"):
            await artifacts.load(link, "caller", 100)


async def test_a_failed_fetch_says_so_in_every_process(tmp_path: Path) -> None:
    async with replicas(tmp_path, reply(404, b"")) as (processes, _):
        link = processes.produce(processes.start())
        with pytest.raises(UpstreamFailed, match="HTTP 404"):
            await processes.start().find(text_in(link) or "")


def files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_a_name_is_bound_to_its_time_and_its_secret() -> None:
    name = new_name(1_795_000_000)
    text = sign(SECRET, name)
    assert verify(SECRET, f"{text}.png") == name
    assert verify(SECRET, f"{text}.zip") == name
    assert verify(bytes(32), f"{text}.png") is None
    assert verify(SECRET, text) is None
    assert len({sign(SECRET, new_name(1)) for _ in range(100)}) == 100


async def portions(*data: bytes) -> AsyncIterator[bytes]:
    for portion in data:
        yield portion


async def read(storage: DirectoryStorage, name: str, start: int, end: int) -> bytes:
    return b"".join([portion async for portion in storage.read(name, start, end)])


async def test_contents_in_a_directory(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path / "a")
    assert await storage.contents() == []
    await storage.write("7/ab", portions(b"one ", b"", b"two"))
    assert await read(storage, "7/ab", 0, 7) == b"one two"
    assert await read(storage, "7/ab", 4, 6) == b"tw"
    assert [(content.name, content.size) for content in await storage.contents()] == [("7/ab", 7)]
    with pytest.raises(FileNotStored):
        await read(storage, "7/ab", 0, 8)
    await storage.remove("7/ab")
    await storage.remove("7/ab")
    with pytest.raises(NotFound):
        await read(storage, "7/ab", 0, 7)


async def test_a_content_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"one"
        raise UpstreamFailed("it breaks off")

    with pytest.raises(UpstreamFailed):
        await DirectoryStorage(tmp_path).write("7/ab", breaking())
    assert files_in(tmp_path) == []


async def test_a_directory_that_cannot_be_written_is_an_error_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(FileNotStored) as raised:
        await DirectoryStorage(tmp_path / "a").write("7/ab", portions(b"one"))
    assert str(tmp_path) not in raised.value.message
    assert raised.value.log


async def test_expired_contents_and_leftovers_are_erased(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    eraser = Eraser(storage, limit=1000, now=lambda: 10.0 * BUCKET_SECONDS)
    for bucket in (8, 9, 10):
        await storage.write(f"{bucket}/ab", portions(b"x"))
    for name, age in (("dead", LEFTOVER_SECONDS + 60), ("alive", 0)):
        unfinished = tmp_path / "unfinished" / name
        unfinished.write_text("x")
        written = unfinished.stat().st_mtime - age
        os.utime(unfinished, (written, written))
    assert await eraser.sweep() == 2
    assert [path.name for path in files_in(tmp_path)] == ["ab", "alive"]
    assert {path.parent.name for path in files_in(tmp_path)} == {"10", "unfinished"}


async def test_the_oldest_contents_are_erased_beyond_the_limit(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    eraser = Eraser(storage, limit=10, now=lambda: 0.0)
    for number in range(4):
        await storage.write(f"9/{number}", portions(b"1234"))
        os.utime(tmp_path / "9" / str(number), (number, number))
        await eraser.count(4)
    assert [path.name for path in files_in(tmp_path)] == ["2", "3"]
