"""Installs other gateways from PyPI on demand, and starts them between the OpenAI side of the upstream and the load.

Each has its own environment below `.tools/peers`, which later runs reuse.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench import namespace, servers
from bench.namespace import NoNamespace
from bench.servers import NotStarted

DIRECTORY = servers.ROOT / ".tools" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway. `start` takes its environment, a working directory and the upstream's base URL."""

    name: str
    package: str
    model: str
    start: Callable[[Path, Path, str, set[int]], AbstractContextManager[tuple[str, int]]]
    share: int = 1
    """The load is divided by this number: a slow gateway would not keep up with the full one."""
    all_interfaces: bool = False
    """Whether it listens on all interfaces, without a setting for it."""


def install_all(*, can_isolate: bool) -> dict[Peer, Path]:
    """Install the peers, and restart the bench in a network namespace; return the directories of their programs.

    A peer that cannot be installed is skipped. So is one that listens on all interfaces, if there is no namespace:
    without `can_isolate`, or on a system that has none.
    """
    installed = {}
    for peer in PEERS:
        try:
            installed[peer] = install(peer)
        except NotStarted as exc:
            skip(peer, str(exc))
    try:
        if not can_isolate:
            raise NoNamespace("--target is outside of the namespace")
        namespace.enter()
    except NoNamespace as exc:
        for peer in [peer for peer in installed if peer.all_interfaces]:
            skip(peer, f"it listens on all interfaces, and the bench is in no network namespace: {exc}")
            del installed[peer]
    return installed


def skip(peer: Peer, reason: str) -> None:
    Console(stderr=True).print(f"{peer.name} is skipped: {reason}", style="yellow", markup=False)


def install(peer: Peer, directory: Path = DIRECTORY) -> Path:
    """Install a peer unless it is installed; return the directory of its programs. Raises NotStarted."""
    environment = directory / re.sub(r"[^a-z0-9.]+", "-", peer.package)
    done = environment / ".installed"
    if not done.exists():
        python = environment / "bin" / "python"
        uv = shutil.which("uv") or str(servers.ROOT / ".tools" / "bin" / "uv")
        _install_step(peer, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)])
        _install_step(peer, [uv, "pip", "install", "--quiet", "--python", str(python), peer.package])
        done.touch()
    return environment / "bin"


def _install_step(peer: Peer, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise NotStarted(f"{peer.package} could not be installed: {exc}") from exc
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise NotStarted(f"{peer.package} could not be installed: {reason[-1]}")


@contextmanager
def start(peer: Peer, programs: Path, upstream_url: str, processors: set[int]) -> Iterator[tuple[str, int]]:
    """Start an installed peer; yield its base URL and pid. Raises NotStarted."""
    with (
        TemporaryDirectory(prefix=f"bench-{peer.name.lower()}-") as directory,
        peer.start(programs, Path(directory), upstream_url, processors) as started,
    ):
        yield started


@contextmanager
def _ferro(programs: Path, directory: Path, upstream_url: str, processors: set[int]) -> Iterator[tuple[str, int]]:
    port = servers.free_port()
    configuration = directory / "gateway.yaml"
    configuration.write_text("strategy:\n  mode: single\ntargets:\n  - virtual_key: openai\n")
    environment = {
        "OPENAI_BASE_URL": upstream_url,
        "OPENAI_API_KEY": servers.KEY,
        "GATEWAY_CONFIG": str(configuration),
        "ALLOW_UNAUTHENTICATED_PROXY": "true",
        "RATE_LIMIT_RPS": "0",
        "GOMAXPROCS": "1",
        "PORT": str(port),
    }
    with _running([str(programs / "ferrogw"), "serve"], directory, environment, processors) as process:
        servers.wait_for(process, port, "Ferro")
        yield f"http://127.0.0.1:{port}/v1", process.pid


TENSORZERO = """
import asyncio, os, sys
from tensorzero import tensorzero

async def main():
    gateway = tensorzero._start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    print(gateway.base_url, flush=True)
    os.dup2(2, 1)  # the bench reads nothing more
    await asyncio.Event().wait()

asyncio.run(main())
"""

TENSORZERO_CONFIGURATION = """
[gateway]
observability.enabled = false

[models.m]
routing = ["openai"]

[models.m.providers.openai]
type = "openai"
model_name = "m"
api_base = "{upstream_url}/"
api_key_location = "env::OPENAI_API_KEY"
"""


@contextmanager
def _tensorzero(programs: Path, directory: Path, upstream_url: str, processors: set[int]) -> Iterator[tuple[str, int]]:
    configuration = directory / "tensorzero.toml"
    configuration.write_text(TENSORZERO_CONFIGURATION.format(upstream_url=upstream_url))
    command = [str(programs / "python"), "-c", TENSORZERO, str(configuration)]
    environment = {"OPENAI_API_KEY": servers.KEY, "TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"}
    with _running(command, directory, environment, processors, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = next((line for line in process.stdout if line.startswith(b"http://")), None)
        if url is None:
            raise NotStarted(f"TensorZero exited with code {process.wait()}")
        yield url.decode().strip(), process.pid


LITELLM_CONFIGURATION = """
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      api_base: {upstream_url}
      api_key: {key}
"""


@contextmanager
def _litellm(programs: Path, directory: Path, upstream_url: str, processors: set[int]) -> Iterator[tuple[str, int]]:
    port = servers.free_port()
    configuration = directory / "litellm.yaml"
    configuration.write_text(LITELLM_CONFIGURATION.format(upstream_url=upstream_url, key=servers.KEY))
    command = [str(programs / "litellm"), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    with _running(command, directory, environment, processors) as process:
        servers.wait_for(process, port, "LiteLLM", seconds=90)
        yield f"http://127.0.0.1:{port}/v1", process.pid


@contextmanager
def _running(
    command: list[str], directory: Path, environment: dict[str, str], processors: set[int], stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a peer in an empty home. Its output goes to `output` in `DIRECTORY`, unless `stdout` is a pipe."""
    home = {"HOME": str(directory), "PATH": os.environ["PATH"]}
    with (
        (DIRECTORY / "output").open("ab") as output,
        servers.running(
            command,
            cwd=directory,
            env={**home, **environment},
            processors=processors,
            stdout=output.fileno() if stdout is None else stdout,
            stderr=output.fileno(),
            patience=5,
        ) as process,
    ):
        yield process


PEERS = [
    Peer("TensorZero", "tensorzero==2026.6.0", "tensorzero::model_name::m", _tensorzero),
    Peer("Ferro", "ferrogw==1.5.10", "gpt-4o", _ferro, all_interfaces=True),
    Peer("LiteLLM", "litellm[proxy]==1.106.2", "m", _litellm, share=20),
]
