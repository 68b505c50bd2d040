"""Proxies and private certificates, in every client that connects to other servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openai_dify_proxy.errors import InvalidRequest, PictureNotStored, ProxyError, UpstreamUnreachable
from openai_dify_proxy.pictures.objects import open_object_store
from openai_dify_proxy.settings import NetworkSettings, SecretStr, SettingsError
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.fetch import GuardedFetcher, OutputFetcher
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.upstream.replicate import ReplicateClient
from tests.api.servers import http_answer
from tests.certificates import Certificate, make_certificate
from tests.limits import PATIENCE
from tests.upstream.http_proxy import TestProxy, http_proxy

NAME = "upstream.test"
"""A host that only the proxy resolves."""

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
PICTURE = f"{'ab' * 32}.png"
PREDICTION = b'{"id": "p1", "status": "succeeded", "urls": {}}'
ANSWERS = {
    "/v1/": b'{"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": "1.16.1"}',
    "/api/v0/add": b'{"Name": "x.png", "Hash": "%b", "Size": "1"}' % CID.encode(),
    "/v1/models/a/b/predictions": PREDICTION,
    "/v1/predictions": PREDICTION,
    "/file.png": b"picture",
}
Call = Callable[[str, NetworkSettings], Awaitable[object]]


async def ask_dify(origin: str, settings: NetworkSettings) -> None:
    http = HttpClient(connect_timeout=PATIENCE, network=Network(settings))
    try:
        await DifyClient(http).welcome(f"{origin}/v1")
    finally:
        await http.close()


async def ask_ipfs(origin: str, settings: NetworkSettings) -> object:
    http = HttpClient(connect_timeout=PATIENCE, network=Network(settings))
    try:
        return await IpfsClient(http, f"{origin}/api/v0/add").add(b"x", "x.png", "image/png")
    finally:
        await http.close()


async def ask_replicate(origin: str, settings: NetworkSettings) -> object:
    client = ReplicateClient(f"{origin}/v1", "r8_x", connect_timeout=PATIENCE, network=Network(settings))
    try:
        return await client.create(ModelRef("a/b"), {}, cancel_after=5)
    finally:
        await client.close()


async def fetch_output(origin: str, settings: NetworkSettings) -> object:
    fetcher = OutputFetcher([origin], connect_timeout=PATIENCE, network=Network(settings))
    try:
        return await fetcher.read(f"{origin}/file.png", 100)
    finally:
        await fetcher.close()


async def fetch_url(origin: str, settings: NetworkSettings) -> object:
    fetcher = GuardedFetcher(connect_timeout=PATIENCE, network=Network(settings))
    try:
        return await fetcher.read(f"{origin}/file.png", 100, "image_url")
    finally:
        await fetcher.close()


async def ask_object_store(origin: str, settings: NetworkSettings) -> object:
    options = "access_key_id=a&secret_access_key=b&region=x&timeout=2s&connect_timeout=2s"
    return await open_object_store(f"s3://bucket/p?endpoint={origin}&{options}", network=settings).record(PICTURE)


CALLS = [ask_dify, ask_ipfs, ask_replicate, fetch_output, fetch_url, ask_object_store]


@asynccontextmanager
async def server(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run an upstream for all calls; objects do not exist there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode().partition("?")[0]
        status = 200 if path in ANSWERS else 404
        writer.write(http_answer(status, ANSWERS.get(path, b"<Error><Code>NoSuchKey</Code></Error>")))
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with running:
        yield running.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), names=f"DNS:{NAME},IP:127.0.0.1")


def network(proxy: TestProxy | None = None, ca: Path | None = None, **settings: object) -> NetworkSettings:
    url = SecretStr(proxy.url) if proxy is not None else None
    found = {"http_proxy": url, "https_proxy": url, "proxy_fetches": True, "extra_ca_certs": str(ca) if ca else None}
    return NetworkSettings(**{**found, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("call", CALLS)
async def test_requests_to_https_are_tunnelled(call: Call, certificate: Certificate) -> None:
    async with server(certificate.server_context()) as port, http_proxy(login="anna:p%40ss@") as proxy:
        await call(f"https://{NAME}:{port}", network(proxy, certificate.file))
        assert set(proxy.requests) == {f"CONNECT {NAME}:{port}"}
        assert set(proxy.authorizations) == {"Basic YW5uYTpwQHNz"}  # anna:p@ss


@pytest.mark.parametrize("call", CALLS)
async def test_requests_to_http_are_forwarded(call: Call) -> None:
    async with server() as port, http_proxy(login="anna:p%40ss@") as proxy:
        await call(f"http://{NAME}:{port}", network(proxy))
        assert all(request.split(" ")[1].startswith(f"http://{NAME}:{port}/") for request in proxy.requests)
        assert set(proxy.authorizations) == {"Basic YW5uYTpwQHNz"}


@pytest.mark.parametrize("call", [call for call in CALLS if call is not fetch_url])
async def test_loopback_and_exceptions_are_reached_directly(call: Call) -> None:
    async with server() as port, http_proxy() as proxy:
        await call(f"http://127.0.0.1:{port}", network(proxy))
        assert proxy.requests == []


@pytest.mark.parametrize("call", [call for call in CALLS if call is not fetch_url])
async def test_a_private_authority_is_trusted_only_where_it_is_configured(call: Call, certificate: Certificate) -> None:
    async with server(certificate.server_context()) as port:
        await call(f"https://127.0.0.1:{port}", network(ca=certificate.file))
        with pytest.raises((ProxyError, PictureNotStored)):
            await call(f"https://127.0.0.1:{port}", network())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "requires a user and a password"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused the connection with status 403"),
        (b"HTTP/1.1 200 OK\r\n", "sent no complete answer to connect"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak http"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "sent data before the server"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "sent no complete answer to connect"),
    ],
)
async def test_a_proxy_that_refuses_is_named(answer: bytes, reason: str) -> None:
    async with http_proxy(answer, login="anna:secret@") as proxy:
        with pytest.raises(UpstreamUnreachable) as caught:
            await ask_dify(f"https://{NAME}:443", network(proxy))
    address = proxy.url.rpartition("@")[2]
    assert f"cannot be reached: the proxy {address} {reason}." in (caught.value.log or "")
    assert "secret" not in f"{caught.value} {caught.value.log}"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unreachable_proxy_is_named(scheme: str) -> None:
    async with http_proxy() as proxy:
        pass
    with pytest.raises(UpstreamUnreachable) as caught:
        await ask_dify(f"{scheme}://{NAME}", network(proxy))
    assert f"the proxy {proxy.url.removeprefix('http://')} cannot be reached: " in (caught.value.log or "")


async def test_urls_of_clients_are_not_fetched_through_a_proxy_by_default() -> None:
    async with http_proxy() as proxy:
        with pytest.raises(InvalidRequest, match="does not fetch URLs through its proxy"):
            await fetch_url(f"http://{NAME}", network(proxy, proxy_fetches=False))
        assert proxy.requests == []


@pytest.mark.parametrize("host", ["10.0.0.1", "0x0a.1", "[fe80::1]", "127.0.0.1", "2130706433", "localhost"])
async def test_private_addresses_are_not_fetched_through_a_proxy(host: str) -> None:
    async with http_proxy() as proxy:
        with pytest.raises(InvalidRequest, match="outside the public internet"):
            await fetch_url(f"http://{host}", network(proxy))
        assert proxy.requests == []


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ((), "dify.test", 80, False),
        (("dify.test",), "dify.test", 80, True),
        (("DIFY.test",), "dify.test", 80, True),
        (("test",), "dify.test", 80, True),
        ((".test",), "dify.test", 80, True),
        (("*.test",), "dify.test", 80, True),
        (("fy.test",), "dify.test", 80, False),
        (("dify.test:8080",), "dify.test", 80, False),
        (("dify.test:8080",), "dify.test", 8080, True),
        (("10.0.0.0/8",), "10.1.2.3", 80, True),
        (("10.0.0.0/8",), "11.1.2.3", 80, False),
        (("10.1.2.3",), "10.1.2.3", 80, True),
        (("10.1.2.3:81",), "10.1.2.3", 80, False),
        (("fd00::/8",), "fd00::1", 80, True),
        (("[fd00::1]:80",), "fd00::1", 80, True),
        (("*",), "dify.test", 80, True),
        ((), "127.0.0.9", 80, True),
        ((), "::1", 80, True),
        ((), "localhost", 80, True),
    ],
)
def test_exceptions(exceptions: tuple[str, ...], host: str, port: int, direct: bool) -> None:
    settings = NetworkSettings(http_proxy=SecretStr("http://proxy.test"), no_proxy=exceptions)
    assert (Network(settings).proxy_of("http", host, port) is None) == direct
    assert Network(settings).proxy_of("https", host, port) is None


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "https://proxy", "proxy:3128", "http://", "http://proxy/path"])
def test_other_proxies_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="must be the URL of an HTTP proxy"):
        load_settings(env={"HTTPS_PROXY": url}, dotenv=None)


def test_files_without_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(SettingsError, match="must be a "):
            load_settings(env={"EXTRA_CA_CERTS": str(tmp_path / name)}, dotenv=None)
