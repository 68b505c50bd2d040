"""The connections that arrive in the moment in which a server stops listening."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from openai_dify_proxy.cli.listening import listen
from openai_dify_proxy.cli.server import GracefulServer, server_config
from tests.limits import PATIENCE
from tests.server.test_connections import GET, LIMITS, Client, Echo


class Listening(GracefulServer):
    """Sets ``listening`` once it accepts connections."""

    def __init__(self, app: Echo) -> None:
        super().__init__(server_config(app, LIMITS, grace=1))
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def test_the_last_connections_are_served() -> None:
    """They have been established by the kernel, and their clients have sent requests."""
    app = Echo()
    server = Listening(app)
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    assert server.listening.wait(PATIENCE)

    async def connect_and_close() -> list[Client]:
        """Connect within one step of the server's loop, so that it cannot accept, and stop listening."""
        clients = [Client(port, "127.0.0.1").send(GET) for _ in range(5)]
        server.accept_last_connections(sockets)
        return clients

    clients = asyncio.run_coroutine_threadsafe(connect_and_close(), app.loop).result(PATIENCE)
    assert [client.response() for client in clients] == [(200, b"GET /a 0\n")] * 5
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)
    for client in clients:
        client.close()
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()
