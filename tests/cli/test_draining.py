"""The end of a server under load: connections that arrive in that moment, and answers that began before it."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from openai_dify_proxy.cli.listening import listen
from openai_dify_proxy.cli.server import GracefulServer, server_config
from tests.limits import PATIENCE
from tests.server.test_connections import GET, LATE, LIMITS, RELEASE, Client, Echo

ANSWER = (200, b"GET /a 0\n")


class Streaming(Echo):
    """Answers ``/stream`` with a stream whose second part waits for a request to ``/release``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/stream":
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self._released.wait()
        await send({"type": "http.response.body", "body": b"last"})


class Draining(GracefulServer):
    """A server in a thread."""

    def __init__(self) -> None:
        self.app = Streaming()
        super().__init__(server_config(self.app, LIMITS, grace=PATIENCE))
        self.sockets = listen("127.0.0.1", 0)
        self.port = self.sockets[0].getsockname()[1]
        self._listening = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(self.sockets,), daemon=True)
        self.thread.start()
        assert self._listening.wait(PATIENCE)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call ``function`` in one step of the server's loop, and return its result."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.app.loop).result(PATIENCE)

    def join(self) -> None:
        self.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def server() -> Iterator[Draining]:
    running = Draining()
    yield running
    running.join()


def test_the_last_connections_are_served(server: Draining) -> None:
    """The kernel has established them, and their clients have sent requests."""

    def connect_and_close() -> list[Client]:
        clients = [Client(server.port, "127.0.0.1").send(GET) for _ in range(5)]
        server.accept_last_connections(server.sockets)
        return clients

    clients: list[Client] = server.call(connect_and_close)
    assert [client.response() for client in clients] == [ANSWER] * 5
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    for client in clients:
        client.close()


def test_a_stream_that_began_before_the_end_ends_with_its_connection(server: Draining) -> None:
    """Its head has not announced the end, so a client might send another request a moment after the last byte."""
    client, other = (Client(server.port, "127.0.0.1") for _ in range(2))
    client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"first" not in received:
        received += client.socket.recv(4096)
    assert b"connection: close" not in received
    server.call(lambda: server.begin_drain(closing=True))
    poller = select.poll()
    poller.register(client.socket, select.POLLIN | select.POLLRDHUP)
    assert other.send(RELEASE).response()[0] == 200
    ((_, events),) = poller.poll(PATIENCE * 1000)
    assert events & select.POLLRDHUP or sys.platform != "linux"
    assert client.socket.recv(4096) == b"4\r\nlast\r\n0\r\n\r\n"
    assert client.closed()
    client.close()
    other.close()


@pytest.mark.parametrize("path", [LATE, GET])
def test_later_answers_announce_the_end(server: Draining, path: bytes) -> None:
    """Those to requests from before the drain, and those to later ones on idle connections."""
    client, other = (Client(server.port, "127.0.0.1") for _ in range(2))
    if path == LATE:
        client.send(LATE)
        assert server.app.late.wait(PATIENCE)
    server.call(lambda: server.begin_drain(closing=True))
    if path == LATE:
        assert other.send(RELEASE).response()[0] == 200
    else:
        client.send(GET)
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.file.readline()
    assert b"connection: close\r\n" in head
    client.close()
    other.close()
