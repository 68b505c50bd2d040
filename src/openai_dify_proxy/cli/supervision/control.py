"""The supervisor's side of the socket of ``openai-dify-proxy reload``."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

REQUEST = b"reload\n"
MAX_CLIENTS = 8


class Control:
    """Answers requests for a reload on ``listener``, a socket at ``path``; None if there is no place for it.

    ``sources`` are to be watched; ``receive`` handles one that is readable.
    """

    def __init__(self, listener: socket.socket | None, path: str) -> None:
        self._listener = listener
        self._path = path
        self._clients: list[socket.socket] = []
        self._waiting: list[socket.socket] = []
        if listener is not None:
            listener.setblocking(False)

    def close(self) -> None:
        """Remove the socket."""
        if self._listener is not None:
            try:
                os.unlink(self._path)  # noqa: PTH108 - pathlib takes memory
            except OSError:
                pass  # somebody has removed it
            self._listener.close()
        for client in (*self._clients, *self._waiting):
            client.close()

    @property
    def sources(self) -> list[socket.socket]:
        """The listening socket, and the clients that have not sent their request."""
        return ([self._listener] if self._listener is not None else []) + self._clients

    def receive(self, source: Any) -> bool:
        """Accept a client, or read its request. Return whether a reload was requested."""
        if self._listener is not None and source is self._listener:
            self._accept(self._listener)
            return False
        try:
            request = source.recv(len(REQUEST))
        except OSError:
            request = b""
        self._clients.remove(source)
        if request != REQUEST:
            source.close()
            return False
        self._waiting.append(source)
        return True

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client has left
        if len(self._clients) + len(self._waiting) >= MAX_CLIENTS:
            client.close()
            return
        client.setblocking(False)
        self._clients.append(client)

    def answer(self, problems: list[str]) -> None:
        """Answer all requests."""
        for client in self._waiting:
            try:
                client.sendall(json.dumps(problems).encode())
            except OSError:
                pass  # the client has left
            client.close()
        self._waiting.clear()
