"""The socket through which ``openai-dify-proxy reload`` reaches a running server.

It is in a private directory of its user: ``$XDG_RUNTIME_DIR/openai-dify-proxy``, or ``openai-dify-proxy-UID`` in the
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

import structlog

from openai_dify_proxy.cli.supervision.control import MAX_CLIENTS, REQUEST

log = structlog.get_logger(__name__)


class CannotReload(Exception):
    """No server could be reached. The text contains the reason and the remedy."""


def socket_path(port: int) -> Path:
    """Return the place of the socket of the server on ``port``."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime, "openai-dify-proxy") if runtime else Path(tempfile.gettempdir(), _own_name())
    return directory / f"{port}.sock"


def _own_name() -> str:
    return f"openai-dify-proxy-{os.getuid()}"


def open_control_socket(port: int) -> tuple[socket.socket | None, str]:
    """Listen for ``request_reload``. Return the socket, None if there is no place for it, and its path."""
    path = socket_path(port)
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(path.parent)
        path.unlink(missing_ok=True)  # of a server that was killed: the port is ours
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
    except OSError as error:
        log.info("control_socket_missing", path=str(path), reason=error.strerror or str(error))
        listener.close()
        return None, str(path)
    return listener, str(path)


def _require_private(directory: Path) -> None:
    """Raise PermissionError if others could have put a socket into the directory."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(0, "the directory is not private")


def request_reload(port: int) -> list[str]:
    """Ask the server on ``port`` to reload, and wait. Return the problems that prevented it.

    Raises CannotReload if no server can be reached.
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
