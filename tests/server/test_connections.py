"""Connections at the front door, over real sockets: limits, timeouts, pipelines, and clients that misbehave."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from openai_dify_proxy.cli.server import server_config
from openai_dify_proxy.server import FrontDoor, HttpLimits, front_door, http_limits
from openai_dify_proxy.server.exchange import Cycle
from openai_dify_proxy.server.protocol import HOT_PATH, REQUEST_RECORDS
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.telemetry import AccessLog, RequestRecord, RequestRecords
from openai_dify_proxy.turns.client import EXTENSION
from tests.api.servers import ListeningServer
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

LIMITS = http_limits(Settings(max_connections=8))
DEADLINE = 1000
PATIENT = http_limits(
    Settings(
        head_timeout=DEADLINE,
        body_rate_window=DEADLINE,
        idle_timeout=DEADLINE,
        write_timeout=DEADLINE,
        min_body_rate=1024 * 1024,
    )
)
"""Deadlines that pass only when a test moves the time."""

LARGE = 8 * 1024 * 1024


class Echo:
    """Answers with the method, the path and the length of the body.

    ``/late`` waits for a request to ``/release`` before it reads. ``/client`` answers with the client and the scheme,
    ``/large`` with ``LARGE`` bytes at once.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.hot = Hot()
        self.records: list[RequestRecord] = []
        self.late = threading.Event()
        """Set when a request to ``/late`` waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"][REQUEST_RECORDS] = RequestRecords(AccessLog(), self.records.append)
            scope["state"][HOT_PATH] = self.hot
            self.loop, self._released = asyncio.get_running_loop(), asyncio.Event()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests += 1
        if scope["path"] == "/late":
            self.late.set()
            await self._released.wait()
        if scope["path"] == "/release":
            self._released.set()
        size = 0
        if scope["path"] != "/unread":
            message: Message = {"more_body": True}
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size += len(message["body"])
        if scope["path"] == "/callback":
            scope["extensions"][EXTENSION]["responder"].add_headers.append(lambda: [(b"x-added", b"1")])
        if scope["path"] == "/large":
            head = [(b"content-length", b"%d" % LARGE)]
            scope["extensions"][EXTENSION]["responder"].start(200, head, bytes(LARGE), more=False)
            return
        text = f"{scope['method']} {scope['path']} {size}\n".encode()
        if scope["path"] == "/client":
            text = f"{scope['scheme']} {scope['client'][0]}".encode()
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class Hot:
    """A hot path: it answers with the whole request. It leaves bodies with the word ``app`` to the application."""

    paths = frozenset({"/hot"})
    max_body = 1000

    def __init__(self) -> None:
        self.heads: list[list[tuple[bytes, bytes]]] = []
        """The headers of all requests. The same object among two of them means that the second was not parsed."""

    def serve(self, request: Cycle) -> bool:
        scope = request.scope
        self.heads.append(cast(list[tuple[bytes, bytes]], scope["headers"]))
        if b"app" in request.body:
            return False
        seen = [scope["method"], scope["path"], scope["query_string"], scope["http_version"], scope["scheme"]]
        text = repr([*seen, scope["headers"], scope["client"], scope["server"], bytes(request.body)]).encode()
        head = [(b"content-length", b"%d" % len(text))]
        answer = partial(request.responder.start, 200, head, text, more=False)
        asyncio.get_running_loop().call_soon(answer)  # nothing is written while the front door parses
        return True


class Door:
    """A server behind a front door, on its own port."""

    def __init__(self, limits: HttpLimits, loop: MovableLoop | None) -> None:
        self.app = Echo()
        config = server_config(self.app, limits, grace=1)
        config.port = 0
        self.server = ListeningServer(config)
        if loop is not None:
            self.server.use(loop)
        self.clients: list[Client] = []

    def connect(self, address: str = "127.0.0.1") -> Client:
        client = Client(self.server.servers[0].sockets[0].getsockname()[1], address)
        self.clients.append(client)
        return client

    @property
    def front(self) -> FrontDoor:
        return cast(FrontDoor, self.server.config.http)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call ``function`` in the server's thread and return its result."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.app.loop).result(PATIENCE)

    def disconnect_all(self) -> None:
        while self.clients:
            self.disconnect(self.clients[-1])

    def disconnect(self, client: Client) -> None:
        self.clients.remove(client)
        client.close()


class Client:
    """A plain socket that reads responses whole."""

    def __init__(self, port: int, address: str) -> None:
        """Connect from the loopback address ``address``."""
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0))
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> Client:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # rejected before all of it was sent; the response says why
        return self

    def response(self) -> tuple[int, bytes]:
        """Return status and body of the next response."""
        status = int(self.file.readline().split()[1])
        length = 0
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self.file.read(length)

    def error(self) -> tuple[int, str]:
        """Return status and code of an error, which must be in the OpenAI envelope and the last on its connection."""
        status, body = self.response()
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert self.closed()
        return status, error["code"]

    def closed(self) -> bool:
        """Wait until the server ends the connection; return whether it sent nothing more."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def door(limits: HttpLimits = LIMITS, loop: MovableLoop | None = None) -> Iterator[Door]:
    opened = Door(limits, loop)
    thread = threading.Thread(target=opened.server.run, daemon=True)
    thread.start()
    assert opened.server.listening.wait(PATIENCE)
    try:
        yield opened
    finally:
        opened.disconnect_all()
        opened.server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def patient_door() -> Iterator[tuple[Door, MovableLoop]]:
    """Run a server whose deadlines pass when a test moves the time."""
    loop = MovableLoop()
    with door(PATIENT, loop) as opened:
        yield opened, loop


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def open_door() -> Iterator[Door]:
    with door() as opened:
        yield opened


@pytest.fixture
def shared(open_door: Door) -> Iterator[Door]:
    yield open_door
    open_door.disconnect_all()


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


LATE = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n"
RELEASE = b"GET /release HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, path: bytes = b"/b", headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def test_requests_on_one_connection(shared: Door) -> None:
    client = shared.connect()
    assert client.send(GET).response() == (200, b"GET /a 0\n")
    assert client.send(post(b"hello")).response() == (200, b"POST /b 5\n")
    assert client.send(post(b"x" * 3_000_000)).response() == (200, b"POST /b 3000000\n")
    assert client.send(GET).response() == (200, b"GET /a 0\n")


def test_requests_leave_no_reference_cycles(shared: Door) -> None:
    client = shared.connect()
    assert client.send(GET).response()[0] == 200
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            assert client.send(GET).response()[0] == 200
        assert gc.collect() < 100
    finally:
        gc.enable()


@pytest.mark.parametrize("cut", [1, 7, 4096, 70_000])
def test_request_in_pieces(shared: Door, cut: int) -> None:
    client = shared.connect()
    data = post(b"y" * 100_000 if cut > 100 else b"y" * 50)
    for start in range(0, len(data), cut):
        client.send(data[start : start + cut])
    assert client.response()[0] == 200


@pytest.mark.parametrize("first", [GET, post(b"hello")], ids=["GET", "POST"])
def test_two_requests_cut_anywhere(shared: Door, first: bytes) -> None:
    data = first + b"GET /second/path HTTP/1.1\r\nHost: x\r\n\r\n"
    client = shared.connect()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in range(len(first) - 3, len(data)):
        client.send(data[:cut])
        # Once a further request was answered, the first part has been parsed.
        assert shared.connect().send(GET).response()[0] == 200
        shared.disconnect(shared.clients[-1])
        client.send(data[cut:])
        assert client.response()[0] == 200
        assert client.response() == (200, b"GET /second/path 0\n")


def test_the_app_adds_headers_when_the_response_starts(shared: Door) -> None:
    client = shared.connect().send(GET.replace(b"/a", b"/callback"))
    head = b"".join(iter(client.file.readline, b"\r\n"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"x-added: 1\r\n" in head


def test_chunked_body_with_trailers(shared: Door) -> None:
    chunks = b"".join(b"5\r\nhello\r\n" for _ in range(20_000)) + b"0\r\nX-Trailer: 1\r\n\r\n"
    request = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    client = shared.connect()
    assert client.send(request).response() == (200, b"POST /c 100000\n")
    assert client.send(GET).response() == (200, b"GET /a 0\n")


def test_line_ends_between_requests_are_ignored(shared: Door) -> None:
    client = shared.connect()
    assert client.send(post(b"hi") + b"\r\n").response() == (200, b"POST /b 2\n")
    assert client.send(GET).response() == (200, b"GET /a 0\n")


@pytest.mark.parametrize("body", [b"", b"{}", b"z" * 200_000])
def test_request_with_upgrade_to_h2c_is_answered(shared: Door, body: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    client = shared.connect()
    for _ in range(2):
        assert client.send(post(body, headers=upgrade)).response() == (200, b"POST /b %d\n" % len(body))
    assert client.send(GET.replace(b"\r\n\r\n", b"\r\n" + upgrade + b"\r\n") + GET).response()[0] == 200
    assert client.response() == (200, b"GET /a 0\n")


def test_chunked_request_with_upgrade_is_answered(shared: Door) -> None:
    request = (
        b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    )
    assert shared.connect().send(request).response() == (200, b"POST /c 5\n")


def test_head_is_limited(shared: Door) -> None:
    header = b"X-Long: " + b"a" * 60_000 + b"\r\n"
    assert shared.connect().send(b"GET /a HTTP/1.1\r\n" + header + b"\r\n").response()[0] == 200
    endless = b"GET /a HTTP/1.1\r\n" + header * 2
    assert shared.connect().send(endless).error() == (431, "headers_too_large")
    many = b"GET /a HTTP/1.1\r\n" + b"A: b\r\n" * 20_000
    assert shared.connect().send(many).error() == (431, "headers_too_large")


def test_url_is_limited(shared: Door) -> None:
    assert shared.connect().send(b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 16_000)).response()[0] == 200
    assert shared.connect().send(b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 17_000)).error() == (414, "url_too_long")
    assert shared.connect().send(b"GET /" + b"a" * 500_000).error() == (414, "url_too_long")


def test_trailers_are_limited(shared: Door) -> None:
    head = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    assert shared.connect().send(head + b"X-T: " + b"a" * 200_000).error() == (431, "headers_too_large")


INVALID = [
    b"\x16\x03\x01 hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /a HTTP/9\r\n\r\n",
    b"GET /a\r\n\r\n",
    b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /\x1b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    *(
        b"POST /a HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        for framing in (
            b"Content-Length: 1" + b"0" * 30,
            b"Content-Length: -1",
            b"Content-Length: +5",
            b"Content-Length: 5, 5",
            b"Content-Length: 5 5",
            b"Content-Length : 5",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        )
    ),
]


@pytest.mark.parametrize("request_", INVALID)
def test_other_protocols_are_rejected(shared: Door, request_: bytes) -> None:
    assert shared.connect().send(request_).error() == (400, "invalid_http_request")


def test_log_explains_a_client_that_uses_tls(shared: Door) -> None:
    context = ssl.create_default_context()
    with capture_logs() as logs, pytest.raises(ssl.SSLError):
        context.wrap_socket(shared.connect().socket, server_hostname="localhost")
    (entry,) = [entry for entry in logs if entry["event"] == "request_rejected"]
    assert entry["reason"] == "The request is TLS, not HTTP. Use http:// in the base URL of the client."


def test_pipeline_is_answered_in_order(shared: Door) -> None:
    client = shared.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(500)))
    assert [client.response() for _ in range(500)] == [(200, b"GET /%d 0\n" % number) for number in range(500)]


def test_pipeline_of_a_client_that_reads_nothing_is_not_read() -> None:
    with door() as opened:
        client = opened.connect()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.settimeout(1)
        flood = GET * 10_000
        sent = 0
        try:
            while sent < 100 * len(flood):
                sent += client.socket.send(flood)
        except TimeoutError:
            pass
        # The client has sent no more than fits into the kernel's buffers; the server holds one read and a pipeline.
        assert sent < 40 * len(flood)
        pending = list(opened.server.server_state.connections)
        assert len(pending) == 1
        assert len(pending[0].pipeline) <= LIMITS.pipelined  # type: ignore[union-attr]
        assert opened.connect().send(GET).response()[0] == 200


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET /a HTT", (408, "request_timeout")),
        (b"POST /b HTTP/1.1\r\nContent-Length: 100\r\n\r\n123", (408, "request_timeout")),
        (post(b"x" * 60_000)[:-1], (408, "request_timeout")),
    ],
    ids=["head", "body", "nearly whole body"],
)
def test_slow_request_is_rejected(sent: bytes, answer: tuple[int, str]) -> None:
    with patient_door() as (opened, loop):
        client = opened.connect().send(sent)
        wait_until(lambda: opened.front.reading)
        loop.move(DEADLINE)
        assert client.error() == answer


def test_a_rejection_took_the_time_since_its_head_began() -> None:
    sent_at = time.time()
    with door(http_limits(Settings(head_timeout=0.1))) as opened, capture_logs() as logs:
        assert opened.connect().send(b"GET /a HTT").error() == (408, "request_timeout")
    (record,) = opened.app.records
    assert sent_at - 0.01 <= record.began_at <= time.time() - 0.1  # the loop's clock counts milliseconds
    assert record.seconds >= 0.1
    (line,) = [entry for entry in logs if entry["event"] == "request_rejected"]
    assert line["ms"] == round(record.seconds * 1000)


def test_idle_connections_are_closed() -> None:
    with patient_door() as (opened, loop):
        silent, client = opened.connect(), opened.connect()
        assert client.send(GET).response()[0] == 200
        wait_until(lambda: len(opened.front.idle) == 2)
        loop.move(DEADLINE)
        assert silent.closed()
        assert client.closed()


def test_idle_connections_make_room() -> None:
    with door(http_limits(Settings(max_connections=4))) as opened:
        idle = [opened.connect() for _ in range(4)]
        for client in idle:
            assert client.send(GET).response()[0] == 200
        assert opened.connect().send(GET).response()[0] == 200
        assert idle[0].closed()
        assert idle[3].send(GET).response()[0] == 200


def test_health_is_answered_when_connections_run_out() -> None:
    with door(http_limits(Settings(max_connections=2))) as opened:
        for _ in range(2):
            # After the early response the connection waits for the last byte of the body, so it is not idle.
            assert opened.connect().send(post(b"x" * 10, path=b"/unread")[:-1]).response()[0] == 200
        assert opened.connect().send(GET).error() == (503, "too_many_connections")
        assert opened.connect().send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").response() == (200, b"GET /health 0\n")


def test_rest_of_a_large_body_is_not_read_after_an_early_response(shared: Door) -> None:
    client = shared.connect()
    request = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 100_000
    assert client.send(request).response() == (200, b"POST /unread 0\n")
    assert client.closed()


def test_rest_of_a_small_body_is_discarded_after_an_early_response(shared: Door) -> None:
    client = shared.connect()
    request = post(b"x" * 100_000, path=b"/unread")
    assert client.send(request[:5000]).response() == (200, b"POST /unread 0\n")
    client.send(request[5000:])
    assert client.send(GET).response() == (200, b"GET /a 0\n")


@pytest.mark.parametrize(("settings", "limit"), [(Settings(), 256), (Settings(max_headers=16), 16)])
def test_the_number_of_headers_is_limited(settings: Settings, limit: int) -> None:
    headers = b"".join(b"A%d: b\r\n" % number for number in range(limit))
    with door(http_limits(settings)) as opened:
        assert opened.connect().send(b"GET /a HTTP/1.1\r\n" + headers + b"\r\n").response()[0] == 200
        request = b"GET /a HTTP/1.1\r\n" + headers + b"B: c\r\n\r\n"
        assert opened.connect().send(request).error() == (431, "headers_too_large")


def test_a_client_that_waits_for_100_continue_is_not_slow() -> None:
    with patient_door() as (opened, _):
        client = opened.connect()
        client.send(b"POST /late HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert opened.app.late.wait(PATIENCE)
        (connection,) = opened.front.reading
        opened.run(lambda: connection.check_deadline(connection.since + 1000))
        assert opened.connect().send(RELEASE).response()[0] == 200
        assert client.file.readline() + client.file.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"hello").response() == (200, b"POST /late 5\n")


def test_waiting_requests_of_one_connection_are_limited() -> None:
    """Large heads behind a slow answer: a few are parsed, and the rest stays unread."""
    with door() as opened:
        client = opened.connect()
        client.send(LATE)
        assert opened.app.late.wait(PATIENCE)
        heads = [b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (at, b"y" * 60_000) for at in range(4)]
        client.send(b"".join(heads))
        assert opened.connect().send(GET).response()[0] == 200
        assert opened.run(lambda: sum(opened.front.holding.values())) < 600_000
        assert opened.run(lambda: [len(one.pipeline) for one in opened.front.holding]) in ([1], [2])
        assert opened.connect().send(RELEASE).response()[0] == 200
        answers = [client.response() for _ in range(5)]
        assert answers == [(200, b"GET /late 0\n"), *((200, b"GET /%d 0\n" % at) for at in range(4))]
        assert opened.run(lambda: dict(opened.front.holding)) == {}


def test_incomplete_heads_and_waiting_requests_are_limited_together() -> None:
    with door(http_limits(Settings(head_memory=100_000))) as opened:
        small = opened.connect().send(b"GET /a HTTP/1.1\r\nX: ")
        large = opened.connect().send(b"GET /a HTTP/1.1\r\nX: " + b"y" * 60_000)
        other = opened.connect().send(b"GET /a HTTP/1.1\r\nX: " + b"y" * 50_000)
        assert large.closed()
        for client in (small, other):
            assert client.send(b"z\r\n\r\n").response()[0] == 200
        assert opened.run(lambda: (dict(opened.front.holding), opened.front._held)) == ({}, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_an_address_with_most_connections_makes_room_for_others() -> None:
    with door(http_limits(Settings(max_connections=4))) as opened:
        slow = [opened.connect("127.0.0.2").send(b"GET /a HTT") for _ in range(4)]
        while opened.run(lambda: len(opened.front.reading)) < 4:
            pass
        assert opened.connect("127.0.0.3").send(GET).response()[0] == 200
        assert slow[0].closed()
        assert opened.connect("127.0.0.2").send(GET).response()[0] in (200, 503)
        assert slow[3].send(b"P/1.1\r\nHost: x\r\n\r\n").response()[0] == 200
    assert not opened.front._addresses


@pytest.mark.parametrize(
    ("proxies", "headers", "answer"),
    [
        ((), b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n", b"http 127.0.0.1"),
        (("127.0.0.1",), b"", b"http 127.0.0.1"),
        (("127.0.0.0/8",), b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n", b"https 203.0.113.9"),
        (("127.0.0.1",), b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n", b"http 2.2.2.2"),
    ],
)
def test_client_behind_a_proxy(proxies: tuple[str, ...], headers: bytes, answer: bytes) -> None:
    with door(http_limits(Settings(trusted_proxies=proxies))) as opened:
        request = b"GET /client HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
        assert opened.connect().send(request).response() == (200, answer)
        assert opened.run(lambda: dict(opened.front._addresses)) == ({} if proxies else {"127.0.0.1": 1})


@pytest.mark.parametrize(
    "surplus",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /b HTTP/1.1\r\n" + b"A: b\r\n" * 1000,
        b"GET /b HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
)
@pytest.mark.parametrize("answers", [1, 3])
def test_answers_precede_the_end_after_an_invalid_request(surplus: bytes, answers: int) -> None:
    """A client that sends more than its Content-Length still gets its answer."""
    with door() as opened:
        client = opened.connect().send(LATE + GET * (answers - 1) + surplus)
        assert opened.app.late.wait(PATIENCE)
        assert opened.connect().send(RELEASE).response()[0] == 200
        assert client.response() == (200, b"GET /late 0\n")
        assert [client.response()[0] for _ in range(answers - 1)] == [200] * (answers - 1)
        assert client.closed()


def test_answer_precedes_the_end_after_a_slow_head() -> None:
    with door() as opened:
        client = opened.connect().send(LATE + b"GET /b HT")
        assert opened.app.late.wait(PATIENCE)
        assert opened.connect().send(GET).response()[0] == 200
        (connection,) = opened.run(lambda: [*opened.front.reading])
        opened.run(lambda: connection.check_deadline(connection.since + 1000))
        assert opened.connect().send(RELEASE).response()[0] == 200
        assert client.response() == (200, b"GET /late 0\n")
        assert client.closed()


HOSTILE = {
    "many headers": b"GET /a HTTP/1.1\r\n" + b"A: b\r\n" * (2 * LIMITS.headers),
    "not HTTP": b"GET\r\n\r\n",
    "long URL": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "waiting": GET * 5 + b"GET /b HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5000,
}


@pytest.mark.parametrize("request_", HOSTILE.values(), ids=HOSTILE)
def test_hostile_connections_leave_no_reference_cycles(shared: Door, request_: bytes) -> None:
    """Otherwise its bytes would stay in memory until the collector's next full run, which may be hours away."""
    shared.run(gc.collect)
    gc.disable()
    try:
        for _ in range(50):
            assert shared.connect().send(request_).response()[0]
            shared.disconnect_all()
        while shared.run(lambda: len(shared.server.server_state.connections)):
            pass
        assert gc.collect() < 50
    finally:
        gc.enable()


def test_memory_is_returned_to_the_system_after_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted here, since a test's process holds memory of other tests."""
    returned = threading.Event()
    monkeypatch.setattr(front_door, "MANY_CONNECTIONS", 4)
    monkeypatch.setattr(front_door, "return_free_memory", returned.set)
    with patient_door() as (opened, loop):
        for _ in range(4):
            assert opened.connect().send(GET).response()[0] == 200
        opened.disconnect_all()
        wait_until(lambda: not opened.server.server_state.connections)
        loop.move(1)
        assert returned.is_set()


def test_health_is_answered_during_a_flood_of_half_sent_heads() -> None:
    with door(http_limits(Settings(max_connections=2))) as opened:
        for _ in range(2 + 2 * front_door.EXTRA_CONNECTIONS):
            opened.connect().send(b"GET /health HT")
        assert opened.connect().send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").response() == (200, b"GET /health 0\n")
