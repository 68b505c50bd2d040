"""An object store and an IPFS node that answer with endless or huge answers: an error, after few bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from openai_dify_proxy.errors import PictureNotStored, ProxyError
from openai_dify_proxy.pictures.objects import MAX_OBJECT_BYTES, ObjectPictures, open_object_store
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from tests.api.servers import serving
from tests.limits import PATIENCE

MIB = 1 << 20
NAME = f"{'ab' * 32}.png"

HEAD = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n'
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
    "an announced size": (HEAD + b"Content-Length: 10000000000\r\n\r\n", bytes(65536)),
    "a body until the end": (HEAD + b"\r\n", bytes(65536)),
    "headers": (HEAD, b"A: b\r\n" * 10_000),
    "a header's value": (HEAD + b"A: ", b"x" * 65536),
}
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"

ALSO: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a redirect": (REDIRECT, b""),
}


class Hostile:
    """Answers each request with ``first``, and then ``again`` until the client closes the connection."""

    def __init__(self, first: bytes, again: bytes = b"") -> None:
        self.sent = self.requests = 0
        self._first = first
        self._again = again

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(self._first)
                while self._again:
                    writer.write(self._again)
                    self.sent += len(self._again)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def object_store(port: int) -> ObjectPictures:
    keys = "access_key_id=a&secret_access_key=b&region=us-east-1"
    return open_object_store(f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&{keys}")


@pytest.mark.parametrize(("first", "again"), ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_object_is_not_read(first: bytes, again: bytes) -> None:
    hostile = Hostile(first, again)
    async with serving(hostile.serve) as port:
        store = object_store(port)
        for call in (store.record(NAME), store.read(NAME), store.take_lease()):
            with pytest.raises(PictureNotStored) as caught:
                await call
            assert "127.0.0.1" not in caught.value.message
        await store.close()
    assert hostile.sent <= 64 * MIB


async def test_the_largest_object_is_larger_than_any_picture() -> None:
    assert MAX_OBJECT_BYTES >= 256 * MIB


async def test_an_object_store_that_redirects_for_ever() -> None:
    hostile = Hostile(REDIRECT)
    async with serving(hostile.serve) as port:
        store = object_store(port)
        with pytest.raises(PictureNotStored):
            await store.record(NAME)
        await store.close()
    assert hostile.requests <= 20


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    http = HttpClient(connect_timeout=PATIENCE)
    yield http
    await http.close()


@pytest.mark.parametrize(("first", "again"), [*ENDLESS.values(), *ALSO.values()], ids=[*ENDLESS, *ALSO])
async def test_an_endless_answer_of_ipfs_is_not_read(client: HttpClient, first: bytes, again: bytes) -> None:
    hostile = Hostile(first, again)
    async with serving(hostile.serve) as port:
        ipfs = IpfsClient(client, f"http://127.0.0.1:{port}/api/v0/add", timeout=PATIENCE)
        with pytest.raises(ProxyError):
            await ipfs.add(b"data", "a.png", "image/png")
    assert hostile.sent <= 64 * MIB
