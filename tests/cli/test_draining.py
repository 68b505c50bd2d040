"""The end of a server under load: connections that arrive in that moment, and those that clients reuse."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openai_dify_proxy.cli.listening import listen
from openai_dify_proxy.cli.server import GracefulServer, server_config
from openai_dify_proxy.server import HttpLimits
from tests.limits import PATIENCE
from tests.server.test_connections import GET, LATE, LIMITS, RELEASE, Client, Echo

ANSWER = (200, b"GET /a 0\n")


class Draining(GracefulServer):
    """A server in a thread."""

    def __init__(self, limits: HttpLimits) -> None:
        self.app = Echo()
        super().__init__(server_config(self.app, limits, grace=PATIENCE))
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

    def begin_shutdown(self) -> None:
        """Do what uvicorn does first, at once."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self.should_exit = True

    def join(self) -> None:
        self.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def server() -> Iterator[Draining]:
    running = Draining(LIMITS)
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


def test_a_connection_is_reused_after_an_answer_that_began_before_the_end(server: Draining) -> None:
    """Its head has not said that the connection is closed."""
    client, idle, other = (Client(server.port, "127.0.0.1") for _ in range(3))
    assert idle.send(GET).response() == ANSWER
    client.send(LATE)
    assert server.app.late.wait(PATIENCE)
    server.call(lambda: server.begin_drain(closing=True, linger=True))
    server.call(server.begin_shutdown)
    assert other.send(RELEASE).response()[0] == 200
    assert client.response() == (200, b"GET /late 0\n")
    for connection in (client, idle):
        assert connection.send(GET).response() == ANSWER
        assert connection.closed()
        connection.close()
    other.close()


def test_without_others_that_serve_its_clients_a_server_ends_at_once(server: Draining) -> None:
    client = Client(server.port, "127.0.0.1")
    assert client.send(GET).response() == ANSWER
    server.call(lambda: server.begin_drain(closing=True, linger=False))
    server.call(server.begin_shutdown)
    assert client.closed()
    client.close()


def test_idle_connections_end_with_their_server() -> None:
    server = Draining(LIMITS)
    client = Client(server.port, "127.0.0.1")
    assert client.send(GET).response() == ANSWER
    server.call(lambda: server.begin_drain(closing=True, linger=True))
    server.join()
    assert client.closed()
    client.close()
