"""The HTTP client, against servers that reuse, drop and delay connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from openai_dify_proxy.upstream.connection_errors import CannotConnect
from openai_dify_proxy.upstream.endpoints import parse_url
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.raw_client import settled, until
from tests.api.servers import RawRequest, http_answer, read_request, serving
from tests.limits import PATIENCE

OK = http_answer(200, b'{"ok": true}')
Answer = Callable[[RawRequest, asyncio.StreamWriter], Awaitable[bool]]


@dataclass
class Upstream:
    """A server that answers each request with ``answer``, whose result decides whether the connection stays open."""

    answer: Answer
    port: int = 0
    requests: list[RawRequest] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while (request := await read_request(reader, number)) is not None:
                self.requests.append(request)
                if not await self.answer(request, writer):
                    break
        except ConnectionError:
            pass  # expected in tests whose client aborts
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def upstream(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[Upstream]:
    server = Upstream(answer)
    async with serving(server.serve, host) as port:
        server.port = port
        yield server


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    http = HttpClient(connect_timeout=PATIENCE)
    yield http
    await http.close()


async def answer_ok(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
    writer.write(OK)
    return True


def scripted(*parts: bytes, then: bool = False) -> Answer:
    """Answer every request with these parts."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return then

    return answer


async def post(client: HttpClient, server: Upstream, path: str = "/x", host: str = "127.0.0.1") -> Exchange:
    """Send a request without waiting for the answer."""
    headers = b"Content-Type: application/json\r\n"
    return await client.exchange("POST", parse_url(f"http://{host}:{server.port}{path}"), headers, b"{}")


async def read(exchange: Exchange) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await exchange.read_all(10**9)


async def ask(client: HttpClient, server: Upstream) -> bytes:
    exchange = await post(client, server)
    body = await read(exchange)
    assert (exchange.status, exchange.ended, exchange.broken) == (200, True, False)
    return body


# Requests and answers on the wire


async def test_a_request_is_whole_and_well_formed(client: HttpClient) -> None:
    async with upstream(answer_ok) as server:
        await client.exchange(
            "POST", parse_url(f"http://127.0.0.1:{server.port}/v1/a?b=c%20d"), b"Authorization: Bearer k\r\n", b"[1]"
        )
        await read(await client.exchange("GET", parse_url(f"http://127.0.0.1:{server.port}"), b""))
        await until(lambda: len(server.requests) == 2)
        posted, got = sorted(server.requests, key=lambda request: request.method, reverse=True)
    assert (posted.path, posted.body) == ("/v1/a?b=c%20d", [1])
    assert posted.headers["host"] == f"127.0.0.1:{server.port}"
    assert posted.headers["authorization"] == "Bearer k"
    assert (got.path, got.body) == ("/", None)
    assert "content-length" not in got.headers


BODY = b"some text, some more"

BODIES: dict[str, tuple[bytes, ...]] = {
    "with a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", BODY),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"a\r\nsome text,\r\n",
        b"A\r\n some more\r\n0\r\n\r\n",
    ),
    "chunked with trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14;x=y\r\n" + BODY + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "until the end": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", BODY),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n", BODY),
    "after 100 and 103": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + BODY,
    ),
    "byte by byte": tuple(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nX-Y: z\r\n\r\n" + BODY),
}


@pytest.mark.parametrize("case", BODIES)
async def test_bodies_are_read_with_every_framing(client: HttpClient, case: str) -> None:
    async with upstream(scripted(*BODIES[case])) as server:
        assert await ask(client, server) == BODY


async def test_the_description_of_an_exchange_has_no_key(client: HttpClient) -> None:
    async with upstream(answer_ok) as server:
        endpoint = parse_url(f"http://127.0.0.1:{server.port}/x")
        exchange = await client.exchange("GET", endpoint, b"Authorization: Bearer secret\r\n")
        assert "secret" not in repr(exchange)
        await read(exchange)


async def test_the_headers_that_matter_are_kept_with_the_trailers(client: HttpClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-TYPE: a/b\r\nSet-Cookie: c\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with upstream(scripted(head + b"1\r\nx\r\n0\r\nX-Stream-Error: full\r\nX-Sum: 1\r\n\r\n")) as server:
        exchange = await post(client, server)
        await read(exchange)
    assert exchange.headers == {"content-type": "a/b", "transfer-encoding": "chunked", "x-stream-error": "full"}


@pytest.mark.parametrize("case", ["with a length", "chunked", "chunked with trailers", "after 100 and 103"])
async def test_a_connection_is_reused_after_each_kind_of_body(client: HttpClient, case: str) -> None:
    async with upstream(scripted(*BODIES[case], then=True)) as server:
        for _ in range(3):
            assert await ask(client, server) == BODY
        assert server.connections == 1


@pytest.mark.parametrize("case", ["until the end", "HTTP/1.0"])
async def test_a_connection_whose_end_is_the_bodys_end_is_not_reused(client: HttpClient, case: str) -> None:
    async with upstream(scripted(*BODIES[case])) as server:
        for _ in range(2):
            assert await ask(client, server) == BODY
        assert server.connections == 2


async def test_connection_close_is_honoured(client: HttpClient) -> None:
    answer = http_answer(200, b"x", "text/plain", "Connection: close")
    async with upstream(scripted(answer, then=True)) as server:
        for _ in range(2):
            await ask(client, server)
        assert server.connections == 2


CUT: dict[str, bytes] = {
    "before a byte": b"",
    "in the status line": b"HTTP/1.1 2",
    "in the headers": b"HTTP/1.1 200 OK\r\nContent-",
    "in a measured body": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nsome",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nsome",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
    "what is no HTTP": b"\x16\x03\x01 nonsense\r\n\r\n",
    "a chunk without size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("case", CUT)
async def test_an_answer_that_breaks_off_on_a_fresh_connection_is_broken_and_not_requested_again(
    client: HttpClient, case: str
) -> None:
    async with upstream(scripted(CUT[case])) as server:
        exchange = await post(client, server)
        await read(exchange)
        assert (exchange.ended, exchange.broken) == (True, True)
        assert len(server.requests) == 1


# Connections


async def test_an_idle_connection_is_closed_after_a_while(client: HttpClient) -> None:
    async with upstream(answer_ok) as server:
        await ask(client, server)
        await until(lambda: server.open == 0)
        await ask(client, server)
        assert server.connections == 2


async def test_a_connection_is_reused_before_it_is_idle_too_long(client: HttpClient) -> None:
    async with upstream(answer_ok) as server:
        for _ in range(10):
            await ask(client, server)
        assert server.connections == 1


async def test_few_idle_connections_stay_open(client: HttpClient) -> None:
    """The client closes the others at once, since an old Dify counts them against its limit; a burst may reuse some."""
    go = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        await go.wait()
        return await answer_ok(request, writer)

    async with upstream(answer) as server:
        exchanges = [await post(client, server) for _ in range(12)]
        await until(lambda: len(server.requests) == 12)
        assert server.open == 12
        go.set()
        await asyncio.gather(*(read(exchange) for exchange in exchanges))
        await until(lambda: server.open <= 4)
        assert server.open == 4
        await until(lambda: server.open == 0)


async def test_two_servers_do_not_share_connections(client: HttpClient) -> None:
    async with upstream(answer_ok) as one, upstream(answer_ok) as other:
        for _ in range(2):
            await ask(client, one)
            await ask(client, other)
        assert (one.connections, other.connections) == (1, 1)


async def test_closing_an_exchange_closes_its_connection(client: HttpClient) -> None:
    async with upstream(
        scripted(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", then=True)
    ) as server:
        exchange = await post(client, server)
        while not exchange.take():
            await exchange.wait()
        exchange.close()
        assert exchange.ended
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("state", ["idle", "busy", "lingering"])
async def test_closing_the_client_closes_every_connection(state: str) -> None:
    client = HttpClient(connect_timeout=PATIENCE)
    answer = (
        answer_ok if state == "idle" else scripted(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", then=True)
    )
    async with upstream(answer) as server:
        exchange = await post(client, server)
        await until(lambda: exchange.status == 200)
        if state == "lingering":
            exchange.linger(30)
        await client.close()
        await until(lambda: server.open == 0)


async def test_a_lingering_answer_that_ends_frees_its_connection(client: HttpClient) -> None:
    go = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
        await go.wait()
        writer.write(b"0\r\n\r\n")
        return True

    async with upstream(answer) as server:
        exchange = await post(client, server)
        await until(lambda: exchange.status == 200)
        exchange.linger(5)
        go.set()
        await until(lambda: exchange.ended)
        await read(await post(client, server))
        assert server.connections == 1


async def test_a_lingering_answer_that_does_not_end_is_closed(client: HttpClient) -> None:
    async with upstream(scripted(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", then=True)) as server:
        exchange = await post(client, server)
        await until(lambda: exchange.status == 200)
        exchange.linger(0.1)
        await until(lambda: server.open == 0)


# Retries


def dying(second: Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]) -> Answer:
    """Answer the first request of each connection; on later ones call ``second`` and close the connection."""
    seen: set[int] = set()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        if request.connection not in seen:
            seen.add(request.connection)
            writer.write(OK)
            return True
        await second(request, writer)
        return False

    return answer


async def test_a_request_is_retried_when_a_reused_connection_dies_at_once(
    client: HttpClient,
) -> None:
    async def at_once(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        return

    async with upstream(dying(at_once)) as server:
        await ask(client, server)
        assert await ask(client, server) == b'{"ok": true}'
        assert [request.connection for request in server.requests] == [1, 1, 2]
        assert server.requests[1] == RawRequest(
            "POST", "/x", server.requests[2].headers, server.requests[2].body, connection=1
        )


async def test_a_request_is_retried_only_once(client: HttpClient) -> None:
    requests = 0

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        nonlocal requests
        requests += 1
        if requests == 1:
            return await answer_ok(request, writer)
        return False

    async with upstream(answer) as server:
        await ask(client, server)
        exchange = await post(client, server)
        await read(exchange)
        assert exchange.broken
        assert requests == 3


async def test_a_request_is_not_retried_when_a_reused_connection_dies_late(client: HttpClient) -> None:
    async def late(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.7)

    async with upstream(dying(late)) as server:
        await ask(client, server)
        exchange = await post(client, server)
        await read(exchange)
        assert exchange.broken
        assert len(server.requests) == 2


async def test_a_request_is_not_retried_after_the_first_byte_of_an_answer(client: HttpClient) -> None:
    async def after_a_byte(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"H")
        await writer.drain()

    async with upstream(dying(after_a_byte)) as server:
        await ask(client, server)
        exchange = await post(client, server)
        await read(exchange)
        assert exchange.broken
        assert len(server.requests) == 2


async def test_a_closed_exchange_is_not_retried(client: HttpClient) -> None:
    closed = asyncio.Event()

    async def when_closed(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await closed.wait()

    async with upstream(dying(when_closed)) as server:
        await ask(client, server)
        exchange = await post(client, server)
        await until(lambda: len(server.requests) == 2)
        exchange.close()
        closed.set()
        await until(lambda: server.open == 0)
        assert len(server.requests) == 2


# Slow readers


async def test_a_slow_reader_pauses_the_server(client: HttpClient) -> None:
    """The server can send only a small part of the body before it is read, and no byte is lost."""
    size, sent = 64 * 1024 * 1024, 0
    piece = b"x" * 65536

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        return True

    async with upstream(answer) as server:
        exchange = await post(client, server)
        await settled(lambda: sent)
        assert 0 < sent < size // 2
        got = 0
        while got < size:
            taken = len(exchange.take())
            assert taken < 4 * 1024 * 1024
            got += taken
            if not taken:
                await asyncio.wait_for(exchange.wait(), PATIENCE)
        assert sent == size
        assert not exchange.broken
        await ask_small(client, server)


async def ask_small(client: HttpClient, server: Upstream) -> None:
    """Check that the paused connection can be reused."""
    exchange = await post(client, server)
    await until(lambda: exchange.status == 200)
    assert server.connections == 1
    exchange.close()


# Unreachable servers


async def test_a_refused_connection_fails_at_once(client: HttpClient) -> None:
    with pytest.raises(CannotConnect, match=r"127\.0\.0\.1:9\."):
        await client.exchange("GET", parse_url("http://127.0.0.1:9/"), b"")


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "http://a..b/", f"http://{'x' * 70}.example/"])
async def test_an_unknown_name_is_unreachable(client: HttpClient, url: str) -> None:
    with pytest.raises(CannotConnect):
        await client.exchange("GET", parse_url(url), b"")


async def test_a_server_that_does_not_accept_times_out(free_backlog: int) -> None:
    client = HttpClient(connect_timeout=0.3)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(CannotConnect):
        await client.exchange("GET", parse_url(f"https://127.0.0.1:{free_backlog}/"), b"")
    assert loop.time() - began > 0.2
    await client.close()


@pytest.fixture
async def free_backlog() -> AsyncIterator[int]:
    """Open a port that accepts connections and never sends a byte, so that TLS handshakes do not complete."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yield mute.getsockname()[1]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="missing part: IPv6 on this machine")
async def test_ipv6_addresses_are_reached(client: HttpClient) -> None:
    async with upstream(answer_ok, "::1") as server:
        exchange = await post(client, server, host="[::1]")
        assert await read(exchange) == b'{"ok": true}'
        assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    ("url", "origin", "authority", "path"),
    [
        ("http://dify/v1/info", ("http", "dify", 80), "dify", "/v1/info"),
        ("https://dify.example/v1?a=b", ("https", "dify.example", 443), "dify.example", "/v1?a=b"),
        ("http://dify:5001", ("http", "dify", 5001), "dify:5001", "/"),
        ("http://me:secret@dify:5001/x", ("http", "dify", 5001), "dify:5001", "/x"),
        ("http://[::1]:80/x", ("http", "::1", 80), "[::1]:80", "/x"),
    ],
)
def test_parse_url(url: str, origin: tuple[str, str, int], authority: str, path: str) -> None:
    endpoint = parse_url(url)
    assert (endpoint.origin.scheme, endpoint.origin.host, endpoint.origin.port) == origin
    assert (endpoint.authority, endpoint.path) == (authority, path)
