"""Downloads from untrusted URLs: the permitted addresses, and the limits of time and size."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from openai_dify_proxy.errors import InvalidRequest, UpstreamFailed
from openai_dify_proxy.upstream.fetch import MAX_REDIRECTS, GuardedFetcher, OutputFetcher
from tests.limits import PATIENCE
from tests.upstream.raw_server import Answer, RawServer, by_path, endless, moved, raw, raw_server, reply

PUBLIC = "127.0.0.2"
"""A loopback address that these tests treat as public, since public addresses may be unavailable."""

PICTURE = b"\x89PNG\r\n\x1a\n and more"


@pytest.fixture
async def fetcher() -> AsyncIterator[GuardedFetcher]:
    """Create a fetcher as the proxy does."""
    fetcher = GuardedFetcher(connect_timeout=PATIENCE)
    yield fetcher
    await fetcher.close()


@pytest.fixture
async def guarded() -> AsyncIterator[GuardedFetcher]:
    """Create a fetcher that treats ``PUBLIC`` as public."""
    fetcher = guarded_fetcher(PATIENCE)
    yield fetcher
    await fetcher.close()


def guarded_fetcher(seconds: float) -> GuardedFetcher:
    return GuardedFetcher(connect_timeout=PATIENCE, seconds=seconds, public=lambda address: address == PUBLIC)


def limit_for(why: str) -> float:
    """Return the time limit in seconds: short only for reads that are meant to exceed it."""
    return 1.0 if why == "longer than" else PATIENCE


HERE = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "2130706433",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "0X7F000001",
    "0",
    "0.0.0.0",
    "127.0.0.1%2e",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ⓛocalhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001::1]",
]


@pytest.mark.parametrize("host", HERE)
async def test_loopback_is_rejected_in_every_spelling(fetcher: GuardedFetcher, host: str) -> None:
    async with raw_server(reply(200, PICTURE)) as server:
        port = server.origin.rpartition(":")[2]
        with pytest.raises(InvalidRequest) as caught:
            await fetcher.read(f"http://{host}:{port}/x.png", 100, "mask")
    assert server.connections == 0
    assert caught.value.param == "mask"


@pytest.mark.parametrize("host", ["[::1]", "[::1%25lo]", "ip6-localhost", "localhost"])
async def test_ipv6_loopback_is_rejected_in_every_spelling(fetcher: GuardedFetcher, host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with raw_server(reply(200, PICTURE), "::1") as server:
        port = server.origin.rpartition(":")[2]
        with pytest.raises(InvalidRequest):
            await fetcher.read(f"http://{host}:{port}/x.png", 100, "mask")
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.170.2", "224.0.0.1"),
        *("[fd00:ec2::254]", "[fe80::1%25lo]", "[fec0::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"),
        *("169。254。169。254", socket.gethostname()),
    ],
)
async def test_private_addresses_are_rejected_at_once(fetcher: GuardedFetcher, host: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^image could not be read: it points to an address outside the public internet"
    ):
        await fetcher.read(f"http://{host}/latest/meta-data/", 100, "image")


async def test_a_name_with_public_and_private_addresses_is_read_at_the_public_one() -> None:
    """Here ``localhost`` resolves to both loopback addresses, one of which counts as public."""
    fetcher = GuardedFetcher(connect_timeout=PATIENCE, public=lambda address: address == "127.0.0.1")
    async with raw_server(reply(200, PICTURE)) as server:
        port = server.origin.rpartition(":")[2]
        assert await fetcher.read(f"http://localhost:{port}/x.png", 100, "mask") == PICTURE
    await fetcher.close()


@pytest.mark.parametrize(
    "url",
    [
        *("", "x.png", "/x.png", "//127.0.0.2/x.png", "http:", "http://", "http:///x", "http:x"),
        *("file:///etc/passwd", "ftp://127.0.0.2/x", "gopher://127.0.0.2/_x", "data:image/png;base64,AAAA"),
        *("javascript:alert(1)", "unix:///run/docker.sock", "ws://127.0.0.2/", "HTTPX://127.0.0.2/"),
        *("http://user@127.0.0.2/", "http://user:secret@127.0.0.2/", "http://:secret@127.0.0.2/"),
        *("http://[::1", "http://127.0.0.2:99999/", "http://127.0.0.2:x/", "http://127.0.0.2:-1/", "http://a b/"),
        *("http://127.0.0.2\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://xn--/", "http://\0/"),
    ],
)
async def test_urls_that_are_not_plain_are_rejected(guarded: GuardedFetcher, url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await guarded.read(url, 100, "mask")
    assert caught.value.param == "mask"
    assert "secret" not in caught.value.message


async def test_public_urls_are_read(guarded: GuardedFetcher) -> None:
    async with raw_server(reply(200, PICTURE), PUBLIC) as server:
        assert await guarded.read(f"{server.origin}/a%20b.png?x=%26&y=1#part", 100, "mask") == PICTURE
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/a%20b.png?x=%26&y=1")
    assert not {"authorization", "cookie", "referer"} & set(request.headers)


async def test_proxies_from_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, fetcher: GuardedFetcher, guarded: GuardedFetcher
) -> None:
    async with raw_server(reply(200, PICTURE)) as proxy, raw_server(reply(200, b"straight"), PUBLIC) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await guarded.read(server.origin, 100, "mask") == b"straight"
        with pytest.raises(InvalidRequest):
            await fetcher.read("http://10.0.0.1/", 100, "mask")
    assert proxy.connections == 0


async def test_cookies_are_not_stored(guarded: GuardedFetcher) -> None:
    async with raw_server(reply(200, PICTURE, "Set-Cookie: a=b"), PUBLIC) as server:
        await guarded.read(server.origin, 100, "mask")
        await guarded.read(server.origin, 100, "mask")
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "http://localhost:{port}/x"])
async def test_redirects_to_private_addresses_are_rejected(guarded: GuardedFetcher, status: int, to: str) -> None:
    async with raw_server(reply(200, PICTURE)) as private:
        location = to.format(port=private.origin.rpartition(":")[2])
        async with raw_server(moved(location, status), PUBLIC) as public:
            with pytest.raises(InvalidRequest, match="points to an address outside the public internet"):
                await guarded.read(public.origin, 100, "mask")
    assert len(public.requests) == 1
    assert private.connections == 0


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.2/", "http://me:secret@127.0.0.2/", "http://[", ""]
)
async def test_redirects_to_urls_that_are_not_plain_are_rejected(guarded: GuardedFetcher, to: str) -> None:
    async with raw_server(moved(to), PUBLIC) as server:
        with pytest.raises(InvalidRequest):
            await guarded.read(server.origin, 100, "mask")


def hops(count: int) -> Answer:
    """Redirect ``/0`` to ``/1`` and so on; ``/count`` returns the picture."""
    return by_path({f"/{step}": moved(f"/{step + 1}") for step in range(count)} | {f"/{count}": reply(200, PICTURE)})


async def test_a_few_redirects_are_followed(guarded: GuardedFetcher) -> None:
    async with raw_server(hops(MAX_REDIRECTS), PUBLIC) as server:
        assert await guarded.read(f"{server.origin}/0", 100, "mask") == PICTURE
    async with raw_server(hops(MAX_REDIRECTS + 1), PUBLIC) as server:
        with pytest.raises(InvalidRequest, match="redirects too many times"):
            await guarded.read(f"{server.origin}/0", 100, "mask")
    assert len(server.requests) == MAX_REDIRECTS + 1


def body(data: bytes, *headers: str) -> Answer:
    """Answer without a length: the end of the connection ends the body."""
    return raw("\r\n".join(["HTTP/1.1 200 OK", *headers, "Connection: close", "", ""]).encode() + data)


BOMB = gzip.compress(bytes(50_000_000))

FAULTS: list[Any] = [
    pytest.param(reply(200, bytes(101)), "larger than 100 bytes", id="too large"),
    pytest.param(body(bytes(101)), "larger than 100 bytes", id="too large, without a length"),
    pytest.param(endless, "larger than 100 bytes", id="endless"),
    pytest.param(reply(200, BOMB, "Content-Encoding: gzip"), "larger than 100 bytes|no answer", id="bomb"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", end=False), "longer than", id="stuck body"),
    pytest.param(raw(b"HTTP/1.1 200", end=False), "longer than", id="stuck head"),
    pytest.param(raw(end=False), "longer than", id="silence"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "no answer", id="cut body"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Le"), "no answer", id="cut head"),
    pytest.param(raw(), "no answer", id="hung up"),
    pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "no answer", id="no HTTP"),
    pytest.param(reply(404), "HTTP 404", id="404"),
    pytest.param(reply(206, b"abc"), "HTTP 206", id="206"),
    pytest.param(reply(304), "HTTP 304", id="304"),
    pytest.param(reply(302), "HTTP 302", id="redirect without a location"),
    pytest.param(reply(500, b"secret"), "HTTP 500", id="500"),
]


@pytest.mark.parametrize(("answer", "why"), FAULTS)
async def test_failed_reads_are_reported_to_the_client(answer: Answer, why: str) -> None:
    guarded = guarded_fetcher(limit_for(why))
    async with raw_server(answer, PUBLIC) as server:
        with pytest.raises(InvalidRequest, match=f"^X-Replicate-Mask could not be read: .*({why})") as caught:
            await guarded.read(server.origin, 100, "X-Replicate-Mask")
    await guarded.close()
    assert "secret" not in caught.value.message
    assert "127.0.0" not in caught.value.message


async def test_a_picture_may_be_as_large_as_the_limit(guarded: GuardedFetcher) -> None:
    async with raw_server(body(bytes(100)), PUBLIC) as server:
        assert await guarded.read(server.origin, 100, "mask") == bytes(100)


async def test_a_public_address_without_a_server(guarded: GuardedFetcher) -> None:
    with pytest.raises(InvalidRequest, match="no answer"):
        await guarded.read(f"http://{PUBLIC}:9/", 100, "mask")


# --- Outputs of a model


@pytest.fixture
async def outputs() -> AsyncIterator[OutputFetcher]:
    fetcher = OutputFetcher((), connect_timeout=PATIENCE)
    yield fetcher
    await fetcher.close()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://replicate.delivery/pbxt/a/out-0.png", True),
        ("https://pbxt.replicate.delivery/a/out-0.png", True),
        ("https://a.b.replicate.delivery/out-0.png", True),
        ("https://REPLICATE.Delivery/out-0.png", True),
        ("https://replicate.delivery:443/out-0.png", True),
        ("http://replicate.delivery/out-0.png", False),
        ("http://pbxt.replicate.delivery/out-0.png", False),
        ("ftp://replicate.delivery/out-0.png", False),
        ("https://evilreplicate.delivery/x", False),
        ("https://replicate.delivery.evil.com/x", False),
        ("https://replicate.delivery.evil.com/replicate.delivery/x", False),
        ("https://evil.com/.replicate.delivery/x", False),
        ("https://evil.com?.replicate.delivery/x", False),
        ("https://evil.com#.replicate.delivery/x", False),
        ("https://replicate.delivery@evil.com/x", False),
        ("https://me@replicate.delivery/x", False),
        ("https://:secret@replicate.delivery/x", False),
        ("https://replicate.delivery./x", False),
        ("https://replicate/x", False),
        ("https://replicate.com/x", False),
        ("https://api.replicate.com/v1/files/a", False),
        ("https://127.0.0.1/x", False),
        ("https://10.0.0.1/x", False),
        ("https:///x", False),
        ("/x", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_outputs_must_be_on_hosts_of_replicate(outputs: OutputFetcher, url: str, allowed: bool) -> None:
    assert outputs.allows(URL(url)) is allowed
    if not allowed:
        with pytest.raises(UpstreamFailed, match="is on a host that this server does not fetch from") as caught:
            await outputs.read(url, 100)
        assert caught.value.started, "the prediction may be paid for"
        assert "secret" not in f"{caught.value.log}"


@pytest.mark.parametrize(
    "url", ["https://evil.com\\.replicate.delivery/x", "https://[", "https://a:b:c/", "https://a:x/"]
)
async def test_ambiguous_urls_are_rejected(outputs: OutputFetcher, url: str) -> None:
    with pytest.raises(UpstreamFailed, match="it is not a URL"):
        await outputs.read(url, 100)


@pytest.mark.parametrize(
    ("named", "allowed", "refused"),
    [
        (
            "cdn.example.com",
            ["https://cdn.example.com/x", "http://cdn.example.com/x", "http://CDN.example.com:8080/x"],
            ["https://a.cdn.example.com/x", "https://example.com/x", "https://me@cdn.example.com/x"],
        ),
        (
            "cdn.example.com:8080",
            ["https://cdn.example.com:8080/x", "http://cdn.example.com:8080/x"],
            ["https://cdn.example.com/x", "http://cdn.example.com:80/x"],
        ),
        ("cdn.example.com:80", ["http://cdn.example.com/x"], ["https://cdn.example.com/x"]),
        (
            "https://cdn.example.com",
            ["https://cdn.example.com/x", "https://cdn.example.com:443/x"],
            ["http://cdn.example.com/x", "https://cdn.example.com:444/x"],
        ),
        ("http://127.0.0.1:9000", ["http://127.0.0.1:9000/x"], ["http://127.0.0.1:9001/x", "https://127.0.0.1:9000/x"]),
        ("[::1]:9000", ["http://[::1]:9000/x", "http://[0:0:0:0:0:0:0:1]:9000/x"], ["http://[::1]/x"]),
        ("http://[::1]", ["http://[::1]/x"], ["http://[::1]:81/x"]),
    ],
)
async def test_hosts_from_the_settings(named: str, allowed: list[str], refused: list[str]) -> None:
    fetcher = OutputFetcher((named,), connect_timeout=PATIENCE)
    assert [fetcher.allows(URL(url)) for url in allowed] == [True] * len(allowed)
    assert [fetcher.allows(URL(url)) for url in refused] == [False] * len(refused)
    assert fetcher.allows(URL("https://replicate.delivery/x")), "Replicate's hosts stay allowed"
    await fetcher.close()


async def read_from(server: RawServer, limit: int = 100, path: str = "/x.png", *, seconds: float = PATIENCE) -> bytes:
    """Read from a server that the settings allow."""
    fetcher = OutputFetcher((server.origin,), connect_timeout=PATIENCE, seconds=seconds)
    try:
        return await fetcher.read(server.origin + path, limit)
    finally:
        await fetcher.close()


async def test_an_output_is_read_without_any_credentials() -> None:
    async with raw_server(hops(MAX_REDIRECTS)) as server:
        assert await read_from(server, path="/0") == PICTURE
    assert len(server.requests) == MAX_REDIRECTS + 1
    assert not any({"authorization", "cookie", "referer"} & set(request.headers) for request in server.requests)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "replicate.delivery"])
async def test_redirects_of_outputs_are_checked_again(host: str) -> None:
    """The redirect to Replicate's host is rejected because of its scheme."""
    async with raw_server(reply(200, PICTURE)) as other:
        port = other.origin.rpartition(":")[2]
        async with raw_server(moved(f"http://{host}:{port}/x.png")) as server:
            with pytest.raises(UpstreamFailed, match="does not fetch from") as caught:
                await read_from(server)
    assert other.connections == 0
    assert f"http://{host}. If you trust this host, add it to REPLICATE_OUTPUT_HOSTS." in (caught.value.log or "")
    assert host not in caught.value.message


@pytest.mark.parametrize(("answer", "why"), FAULTS)
async def test_failed_reads_of_outputs_are_upstream_failures(answer: Answer, why: str) -> None:
    async with raw_server(answer) as server:
        with pytest.raises(UpstreamFailed, match=f"^The model's picture could not be read: .*({why})") as caught:
            await read_from(server, seconds=limit_for(why))
    assert caught.value.started
    assert "secret" not in caught.value.message
    assert "127.0.0" not in caught.value.message
