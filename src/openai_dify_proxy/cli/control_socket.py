"""The socket through which ``openai-dify-proxy reload`` reaches a running server.

It lies in a directory of its owner: ``$XDG_RUNTIME_DIR/openai-dify-proxy``, or ``openai-dify-proxy-UID`` in the
directory for temporary files. The name is the port that the server listens on. The only request is ``reload``; the
answer is a JSON list of problems, empty once workers with the new settings serve.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Self

import structlog

log = structlog.get_logger(__name__)

REQUEST = b"reload\n"
MAX_CLIENTS = 8


class CannotReload(Exception):
    """No server could be asked. The text contains the reason and the remedy."""


def socket_path(port: int) -> Path:
    """Return the place of the socket of the server on ``port``."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime, "openai-dify-proxy") if runtime else Path(tempfile.gettempdir(), _own_name())
    return directory / f"{port}.sock"


def _own_name() -> str:
    return f"openai-dify-proxy-{os.getuid()}"


class ControlSocket:
    """The server's side. ``sources`` are to be watched; ``receive`` handles one that is readable."""

    def __init__(self, port: int) -> None:
        self._path = socket_path(port)
        self._clients: list[socket.socket] = []
        self._waiting: list[socket.socket] = []
        self._listener: socket.socket | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(self._path.parent)
            self._path.unlink(missing_ok=True)  # of a server that was killed: the port is ours
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(MAX_CLIENTS)
            self._listener.setblocking(False)
        except OSError as error:
            log.info("control_socket_missing", path=str(self._path), reason=error.strerror or str(error))
            self._close_listener()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
        self._close_listener()
        for client in (*self._clients, *self._waiting):
            client.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

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


def _require_private(directory: Path) -> None:
    """Raise PermissionError if others could have put a socket into the directory."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(0, "the directory is not private")


def request_reload(port: int) -> list[str]:
    """Ask the server on ``port`` to reload, and wait. Return the problems, which kept it from doing so.

    Raises CannotReload if no server can be asked.
    """
    path = socket_path(port)
    with socket.socket(socket.AF_UNIX) as client:
        try:
            _require_private(path.parent)
            client.connect(str(path))
        except OSError as error:
            raise CannotReload(
                f"No server listens on {path} ({error.strerror or error}). Run this command as the server's user and "
                "with its PORT and XDG_RUNTIME_DIR, or send SIGHUP to the server."
            ) from error
        client.sendall(REQUEST)
        answer = b""
        while part := client.recv(65536):
            answer += part
    if not answer:
        raise CannotReload("The server ended before the new settings were in use.")
    problems: list[str] = json.loads(answer)
    return problems
