"""``GET /pictures/{name}``: stored pictures, their headers, ranges, and files that must not be served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.objects import open_object_store
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.settings.sources import load_settings
from tests import parts
from tests.api.servers import ProxyServer
from tests.components.servers import S3Server
from tests.limits import PATIENCE
from tests.pictures.samples import SAMPLES, encode, image

DATA = encode(image("RGB", (64, 64)), "PNG")
SIZE = len(DATA)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalPictures:
    return LocalPictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def stored(store: LocalPictures) -> PictureRecord:
    writer = PictureWriter(store, limit=10_000_000)
    return asyncio.run(writer.store(DATA, PictureFacts(created=1, model="a/b", prompt="a secret"))).record


@pytest.fixture(scope="module")
def server(store: LocalPictures, stored: PictureRecord) -> Iterator[ProxyServer]:
    env = {"IMAGE_STORAGE_DIR": str(store.directory), "API_KEYS": "client-1"}
    with ProxyServer(load_settings(env=env, dotenv=None)) as running:
        yield running


@pytest.fixture
async def http(server: ProxyServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"{server.origin}/pictures", timeout=30) as client:
        yield client


async def test_a_picture_is_served_without_a_key(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    answer = await http.get(stored.name)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["etag"] == f'"{stored.sha256}"'
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"


async def test_headers_prevent_scripts_in_pictures(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    headers = (await http.get(stored.name)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == f'inline; filename="{stored.name}"'
    assert "set-cookie" not in headers


async def test_head_has_the_headers_of_get(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    answer = await http.head(stored.name)
    assert (answer.status_code, answer.content) == (200, b"")
    full = await http.get(stored.name)
    same = ("content-type", "content-length", "etag", "cache-control", "accept-ranges", "content-disposition")
    assert {name: answer.headers[name] for name in same} == {name: full.headers[name] for name in same}


@pytest.mark.parametrize("name", SAMPLES)
async def test_every_format_has_its_media_type(http: httpx2.AsyncClient, store: LocalPictures, name: str) -> None:
    writer = PictureWriter(store, limit=10_000_000)
    one = await writer.store(SAMPLES[name], PictureFacts(created=1))
    answer = await http.get(one.record.name)
    assert answer.headers["content-type"] == one.record.media_type
    assert answer.content == one.data


@pytest.mark.parametrize("condition", ['"{tag}"', 'W/"{tag}"', '"other", "{tag}"', "*"])
async def test_a_matching_etag_is_a_304(http: httpx2.AsyncClient, stored: PictureRecord, condition: str) -> None:
    answer = await http.get(
        stored.name, headers={"If-None-Match": condition.format(tag=stored.sha256), "Range": "bytes=0-1"}
    )
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{stored.sha256}"'
    assert "immutable" in answer.headers["cache-control"]


async def test_another_etag_gets_the_picture(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    assert (await http.get(stored.name, headers={"If-None-Match": '"other"'})).content == DATA


@pytest.mark.parametrize(
    ("byte_range", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-", 10, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
        (f"bytes=5-{SIZE + 1000}", 5, SIZE),
        (f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE),
        ("Bytes = 3 - 4", 3, 5),
    ],
)
async def test_a_range_is_a_206(
    http: httpx2.AsyncClient, stored: PictureRecord, byte_range: str, start: int, end: int
) -> None:
    for method in ("GET", "HEAD"):
        answer = await http.request(method, stored.name, headers={"Range": byte_range})
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert answer.headers["content-length"] == str(end - start)
        assert answer.content == (DATA[start:end] if method == "GET" else b"")


@pytest.mark.parametrize("byte_range", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
async def test_an_unsatisfiable_range_is_a_416(
    http: httpx2.AsyncClient, stored: PictureRecord, byte_range: str
) -> None:
    answer = await http.get(stored.name, headers={"Range": byte_range})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "byte_range",
    ["bytes=0-1,4-5", "bytes=-", "bytes=5-2", "bytes=a-b", "items=0-1", "0-1", "", f"bytes=0-{'9' * 5000}"],
)
async def test_a_malformed_range_is_ignored(http: httpx2.AsyncClient, stored: PictureRecord, byte_range: str) -> None:
    answer = await http.get(stored.name, headers={"Range": byte_range})
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_a_range_of_another_version_is_ignored(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    same = {"Range": "bytes=0-1", "If-Range": f'"{stored.sha256}"'}
    assert (await http.get(stored.name, headers=same)).status_code == 206
    for other in ('"other"', f'W/"{stored.sha256}"', "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert (await http.get(stored.name, headers=same | {"If-Range": other})).status_code == 200


def variations(stored: PictureRecord) -> list[str]:
    digest, folder = stored.sha256, f"{stored.sha256[:2]}/{stored.sha256[2:4]}"
    return [
        f"/pictures/{'0' * 64}.png",
        f"/pictures/{digest}",
        f"/pictures/{digest}.json",
        f"/pictures/{digest}.jpg",
        f"/pictures/{digest}.PNG",
        f"/pictures/{digest.upper()}.png",
        f"/pictures/{digest}.png%00",
        f"/pictures/{digest}.png%0a",
        f"/pictures/{folder}/{stored.name}",
        f"/pictures/..%2f{stored.name}",
        f"/pictures/{folder.replace('/', '%2f')}%2f{digest}.json",
        "/pictures/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/pictures/../health/../pictures/x",
        "/pictures/%2e%2e%2fipfs.lock",
        "/pictures/pending",
        "/pictures/",
        "/pictures",
    ]


async def test_no_other_files_are_served(server: ProxyServer, stored: PictureRecord) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        for path in variations(stored):
            answer = await client.get(server.origin + path)
            assert answer.status_code == 404, path
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
            assert b"a secret" not in answer.content


async def test_only_get_and_head_are_allowed(http: httpx2.AsyncClient, stored: PictureRecord) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert (await http.request(method, stored.name)).status_code == 405


async def test_the_directory_may_be_created_after_the_start(tmp_path: Path) -> None:
    """The server generates no pictures itself, like a replica that shares the directory with others."""
    store = LocalPictures(tmp_path / "pictures")
    with ProxyServer(load_settings(env={"IMAGE_STORAGE_DIR": str(store.directory)}, dotenv=None)) as server:
        async with httpx2.AsyncClient(base_url=f"{server.origin}/pictures", timeout=30) as client:
            assert (await client.get(f"{'0' * 64}.png")).status_code == 404
            assert not store.directory.exists()
            stored = await PictureWriter(store, limit=10_000_000).store(DATA, PictureFacts(created=1))
            answer = await client.get(stored.record.name)
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_a_link_out_of_the_directory_is_not_served(
    http: httpx2.AsyncClient, store: LocalPictures, tmp_path: Path
) -> None:
    """A symbolic link in the directory has no record."""
    folder = store.directory / "12" / "34"
    name = "1234" + "0" * 60 + ".png"
    await asyncio.to_thread(_link, folder, name, tmp_path / "outside")
    assert (await http.get(name)).status_code == 404


def _link(folder: Path, name: str, outside: Path) -> None:
    outside.write_bytes(b"\x89PNG\r\n\x1a\n")
    folder.mkdir(parents=True)
    (folder / name).symlink_to(outside)


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(parts.s3_server(), tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.mark.parametrize("serve", ["proxy", "redirect"])
async def test_pictures_are_served_from_an_object_store(s3_server: S3Server, serve: str) -> None:
    url = s3_server.url(f"tests/{token_hex(8)}", serve=serve)
    stored = await PictureWriter(open_object_store(url), limit=10_000_000).store(DATA, PictureFacts(created=1))
    settings: Settings = load_settings(env={"PICTURE_STORE": url}, dotenv=None)
    with ProxyServer(settings) as server:
        async with httpx2.AsyncClient(base_url=f"{server.origin}/pictures", timeout=30) as client:
            head = await client.head(stored.record.name)
            assert (head.status_code, head.headers["content-length"]) == (200, str(SIZE)), (
                "HEAD must not redirect, because links are signed for GET"
            )
            answer = await client.get(stored.record.name, headers={"Range": "bytes=1-3"})
            assert serve == "redirect" or answer.content == DATA[1:4]
            answer = await client.get(stored.record.name)
            if serve == "redirect":
                assert answer.status_code == 307
                assert answer.headers["location"].startswith(s3_server.endpoint)
                assert answer.headers["cache-control"] == "public, max-age=1800"
                answer = await client.get(answer.headers["location"])
            assert (answer.status_code, answer.content) == (200, DATA)
            assert answer.headers["content-type"] == "image/png"
            etag = {"If-None-Match": f'"{stored.record.sha256}"'}
            assert (await client.get(stored.record.name, headers=etag)).status_code == 304
            assert (await client.get("0" * 64 + ".png")).status_code == 404
