"""Large files of apps, and files between replicas: real processes, and a real object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest
from openai import AsyncOpenAI

from bench.limits import resident_bytes
from openai_dify_proxy.errors import NotFound, UpstreamFailed
from openai_dify_proxy.files.artifacts.objects import PART, ObjectStorage
from openai_dify_proxy.pictures.object_folders import open_object_folder
from openai_dify_proxy_demo import DemoServer
from tests.api.chat_requests import ask
from tests.components.replicas import Replica, serving
from tests.components.servers import S3Server
from tests.limits import PATIENCE
from tests.security.test_artifacts import OURS

MIB = 1024 * 1024
BOUND = 48 * MIB
"""What a process may grow by while a file of 100 MB passes through it."""


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


async def link_to(replica: Replica, question: str) -> str:
    async with AsyncOpenAI(base_url=replica.url, api_key="unused") as client:
        links: list[str] = OURS.findall(await ask(client, "dify", question))
    assert len(links) == 1
    return links[0]


async def test_a_file_of_100_mb_is_fetched_and_served_in_little_memory(demo: DemoServer, tmp_path: Path) -> None:
    with serving(tmp_path, demo, 1) as replica:
        pid = replica.workers[0].pid
        await link_to(replica, "FILE a small one")  # loads what a first file loads
        before = peak = resident_bytes(pid)
        link = await link_to(replica, "FILE:pdf:100mb")
        size = 0
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            waiting = asyncio.create_task(http.head(link))
            while not waiting.done():
                peak = max(peak, resident_bytes(pid))
                await asyncio.wait([waiting], timeout=0.01)
            assert (await waiting).headers["content-length"] == str(100 * MIB)
            async with http.stream("GET", link) as answer:
                async for portion in answer.aiter_raw():
                    size += len(portion)
                    peak = max(peak, resident_bytes(pid))
        assert size == 100 * MIB
        assert peak - before < BOUND


async def test_any_replica_serves_a_file_after_the_first_one_died(demo: DemoServer, tmp_path: Path) -> None:
    shared = {"STATE_URL": f"sqlite:///{tmp_path}/state.db", "IMAGE_STORAGE_DIR": str(tmp_path / "pictures")}
    with serving(tmp_path / "one", demo, 1, **shared) as one, serving(tmp_path / "two", demo, 1, **shared) as two:
        link = await link_to(one, "FILE:text")
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            first = await http.get(link)
            one.kill()
            other = await http.get(link.replace(one.address, two.address))
        assert (first.status_code, other.status_code) == (200, 200)
        assert other.content == first.content


@pytest.fixture
def objects(s3_server: S3Server) -> ObjectStorage:
    return ObjectStorage(open_object_folder(s3_server.url(f"tests/{token_hex(8)}"), "artifacts").store)


async def portions(*data: bytes) -> AsyncIterator[bytes]:
    for portion in data:
        yield portion


async def read(storage: ObjectStorage, name: str, start: int, end: int) -> bytes:
    return b"".join([portion async for portion in storage.read(name, start, end)])


async def test_contents_in_an_object_store(objects: ObjectStorage) -> None:
    large = [bytes([number]) * PART for number in range(3)]
    await objects.write("7/ab", portions(b"one ", b"two"))
    await objects.write("7/cd", portions(*large, b"end"))
    assert await read(objects, "7/ab", 4, 7) == b"two"
    assert await read(objects, "7/ab", 7, 7) == b""
    assert await read(objects, "7/cd", 0, 3 * PART + 3) == b"".join(large) + b"end"
    assert {(one.name, one.size) for one in await objects.contents()} == {("7/ab", 7), ("7/cd", 3 * PART + 3)}
    await objects.remove("7/ab")
    await objects.remove("7/ab")
    with pytest.raises(NotFound):
        await read(objects, "7/ab", 0, 7)


async def test_an_upload_that_breaks_off_leaves_no_object(objects: ObjectStorage) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * (PART + 1)
        raise UpstreamFailed("it breaks off")

    with pytest.raises(UpstreamFailed):
        await objects.write("7/ab", breaking())
    assert await objects.contents() == []
