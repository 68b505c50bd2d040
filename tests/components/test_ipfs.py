"""Upload to a real IPFS node, and to nodes and services with unusual answers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.errors import (
    ProxyError,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.pictures.ipfs_cid import CHUNK_SIZE, compute_cid
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import MAX_ANSWER, IpfsClient, ipfs_client
from tests.components.odd_ipfs import Answer, added, answer, chunked, hang_up, odd_ipfs, silence
from tests.components.servers import IpfsNode
from tests.limits import PATIENCE

NAME = "0" * 64 + ".png"
DATA = b"\x89PNG\r\n\x1a\n and two dashes --\r\n--boundary--\r\n"
CID = compute_cid(DATA)
LINE = f'{{"Name":"{NAME}","Hash":"{CID}","Size":"{len(DATA)}"}}\n'


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(connect_timeout=PATIENCE)
    yield client
    await client.close()


def client_of(http: HttpClient, url: str, **env: str) -> IpfsClient:
    """Create the client from settings."""
    client = ipfs_client(load_settings(env={"IPFS_UPLOAD_URL": url, **env}, dotenv=None), http)
    assert client is not None
    return client


def test_without_a_url_there_is_no_client() -> None:
    assert ipfs_client(load_settings(env={}, dotenv=None), None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 1000, CHUNK_SIZE, CHUNK_SIZE + 1, 1_600_000, 5_000_000])
async def test_a_node_returns_the_bytes_under_the_cid_computed_by_the_proxy(
    shared_ipfs: IpfsNode, http: HttpClient, size: int
) -> None:
    data = (hashlib.sha256(size.to_bytes(4)).digest() * (size // 32 + 1))[:size]
    cid = await client_of(http, shared_ipfs.rpc).add(data, NAME, "image/png")
    assert cid == compute_cid(data)
    async with httpx2.AsyncClient(timeout=PATIENCE) as reader:
        assert (await reader.post(f"{shared_ipfs.rpc}/api/v0/cat", params={"arg": cid})).content == data
        assert (await reader.get(f"{shared_ipfs.gateway}/ipfs/{cid}")).content == data
        pins = (await reader.post(f"{shared_ipfs.rpc}/api/v0/pin/ls", params={"arg": cid, "cid-base": "base32"})).json()
    assert cid in pins["Keys"]


async def test_a_cid_in_another_base_is_normalized(shared_ipfs: IpfsNode, http: HttpClient) -> None:
    """js-ipfs writes base58 by default, which happens if the operator's URL has its own parameters."""
    url = f"{shared_ipfs.rpc}/api/v0/add?cid-version=1&raw-leaves=true"
    assert await client_of(http, url).add(DATA, NAME, "image/png") == CID


async def test_parameters_of_the_operator_may_change_the_cid(shared_ipfs: IpfsNode, http: HttpClient) -> None:
    cid = await client_of(http, f"{shared_ipfs.rpc}/api/v0/add?cid-version=0").add(DATA, NAME, "image/png")
    assert cid.startswith("bafybei")
    assert cid != CID


async def test_the_upload_request(http: HttpClient) -> None:
    async with odd_ipfs(added(CID)) as node:
        await client_of(http, node.url).add(DATA, NAME, "image/png")
    (upload,) = node.uploads
    path, _, query = upload.target.partition("?")
    assert path == "/api/v0/add"
    assert set(query.split("&")) == {
        "cid-version=1",
        "raw-leaves=true",
        "chunker=size-262144",
        "hash=sha2-256",
        "pin=true",
        "progress=false",
        "cid-base=base32",
    }
    assert upload.file == ("file", NAME, DATA)
    assert upload.form == {}
    assert "authorization" not in upload.headers
    assert "origin" not in upload.headers, "Kubo rejects requests from web pages"


SERVICES: list[Any] = [
    pytest.param("/api/v0/add", {}, {}, f'{{"Name":"{NAME}","Hash":"{CID}","Size":"9"}}\n', id="filebase"),
    pytest.param(
        "/v3/files",
        {"IPFS_UPLOAD_FORM": "network=public,cid_version=1"},
        {"network": "public", "cid_version": "1"},
        f'{{"data":{{"id":"1","name":"{NAME}","cid":"{CID}","size":9}}}}',
        id="pinata",
    ),
    pytest.param("/add?cid-version=1&pin=true", {}, {}, f'{{"name":"{NAME}","cid":"{CID}"}}\n', id="cluster"),
    pytest.param("/api/v0/ipfs/add", {}, {}, f'{{"name":"{NAME}","ipfs_hash":"{CID}","size":"9"}}', id="blockfrost"),
]


@pytest.mark.parametrize(("path", "env", "form", "body"), SERVICES)
async def test_hosted_services(
    http: HttpClient, path: str, env: dict[str, str], form: dict[str, str], body: str
) -> None:
    async with odd_ipfs(answer(body)) as service:
        client = client_of(http, service.url + path, IPFS_UPLOAD_AUTH="Bearer a.b.c", IPFS_UPLOAD_FIELD="data", **env)
        assert await client.add(DATA, NAME, "image/png") == CID
    (upload,) = service.uploads
    assert upload.headers["authorization"] == "Bearer a.b.c"
    assert upload.target.startswith(path)
    assert ("chunker=size-262144" in upload.target) == (path == "/api/v0/add"), "only Kubo's RPC supports parameters"
    assert upload.file == ("data", NAME, DATA)
    assert upload.form == form


async def test_a_form_field_with_a_quote_in_its_name_stays_one_field(http: HttpClient) -> None:
    async with odd_ipfs(added(CID)) as node:
        client = IpfsClient(http, node.url, field='a"; filename="b', form={"x\r\ny": "z"})
        await client.add(DATA, NAME, "image/png")
    assert node.uploads[0].file[0] == "a%22; filename=%22b"
    assert node.uploads[0].form == {"x%0D%0Ay": "z"}


@pytest.mark.parametrize(
    ("script", "error", "log"),
    [
        pytest.param(answer("no", "401 Unauthorized"), UpstreamMisconfigured, "Status 401: no", id="401"),
        pytest.param(answer("Forbidden", "403 Forbidden"), UpstreamMisconfigured, "Status 403", id="403"),
        pytest.param(answer("oh", "500 Internal Server Error"), UpstreamFailed, "Status 500: oh", id="500"),
        pytest.param(answer("", "413 Content Too Large"), UpstreamFailed, "Status 413", id="413"),
        pytest.param(answer("", "301 Moved", "Location: http://127.0.0.1:9/"), UpstreamFailed, "Status 301", id="301"),
        pytest.param(answer("<html>", "200 OK"), UpstreamFailed, "not JSON", id="a web page"),
        pytest.param(answer("{}"), UpstreamFailed, "no CID", id="no CID"),
        pytest.param(answer(""), UpstreamFailed, "no CID", id="nothing"),
        pytest.param(answer(LINE[:-20]), UpstreamFailed, "truncated", id="half a line"),
        pytest.param(chunked(LINE[:-20], end=False), UpstreamFailed, "Status 200", id="cut inside the line"),
        pytest.param(chunked(LINE, end=False), UpstreamFailed, "Status 200", id="cut behind the line"),
        pytest.param(
            chunked(LINE, "X-Stream-Error: pin: no space left"), UpstreamFailed, "pin: no space left", id="trailer"
        ),
        pytest.param(
            chunked(LINE + '{"Message":"pin failed","Code":0,"Type":"error"}\n'),
            UpstreamFailed,
            "pin failed",
            id="error",
        ),
        pytest.param(answer(" " * (MAX_ANSWER + 1)), UpstreamFailed, "bytes", id="no end"),
        pytest.param(hang_up, UpstreamFailed, "closed the connection without an answer", id="hung up"),
        pytest.param(silence, UpstreamTimeout, "within 0.3 s", id="silence"),
    ],
)
async def test_failed_uploads(http: HttpClient, script: Answer, error: type[ProxyError], log: str) -> None:
    timeout = "0.3" if script is silence else str(PATIENCE)
    async with odd_ipfs(script) as node:
        client = client_of(http, node.url, IPFS_UPLOAD_AUTH="Bearer secret", IPFS_TIMEOUT=timeout)
        with pytest.raises(error) as caught:
            await client.add(DATA, NAME, "image/png")
    assert log in (caught.value.log or "")
    assert "127.0.0.1" not in caught.value.message
    assert "secret" not in f"{caught.value.log}{caught.value.message}"
    assert [upload.target.partition("?")[0] for upload in node.uploads] == ["/api/v0/add"]


async def test_a_service_sends_a_retry_after(http: HttpClient) -> None:
    async with odd_ipfs(answer("", "429 Too Many Requests", "Retry-After: 7")) as node:
        with pytest.raises(UpstreamFailed) as caught:
            await client_of(http, node.url).add(DATA, NAME, "image/png")
    assert caught.value.retry_after == 7


async def test_an_unreachable_node(http: HttpClient) -> None:
    with pytest.raises(UpstreamUnreachable, match="IPFS cannot be reached") as caught:
        await client_of(http, "http://127.0.0.1:9").add(DATA, NAME, "image/png")
    assert "127.0.0.1:9" in (caught.value.log or "")


async def test_a_cancelled_upload_leaves_no_connection(http: HttpClient) -> None:
    async with odd_ipfs(silence, added(CID)) as node:
        client = client_of(http, node.url)
        task = asyncio.create_task(client.add(DATA, NAME, "image/png"))
        await node.wait_for_uploads(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.add(DATA, NAME, "image/png") == CID
