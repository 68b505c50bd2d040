"""Watches a proxy while something else burdens it: the silence of `/health`, and resident memory.

`python -m bench.prober` reads a `Probe` as JSON from the first line of stdin, prints a line once `/health` answered,
watches until stdin ends, and prints `Seen` as JSON.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import uvloop

from bench import client
from bench.client import Connection, ConnectionLost
from bench.limits import cpu_seconds, resident_bytes
from bench.servers import ROOT, NotStarted

INTERVAL = 0.02
"""Seconds between two requests on one connection."""

FRESH_INTERVAL = 0.2
"""Seconds between two requests that each open a connection, as a load balancer's checks do."""


class Probe(msgspec.Struct, frozen=True):
    host: str
    port: int
    pid: int


class Seen(msgspec.Struct, frozen=True):
    silence: float
    """The longest time in seconds from a request to the next answer with status 200."""
    silence_cpu: float
    """The most seconds of CPU time that the proxy used in such a time: about the silence on an idle machine."""
    idle_bytes: int
    peak_bytes: int


class Prober:
    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._request = client.request("GET", f"{probe.host}:{probe.port}", "/health")
        self._silence = self._silence_cpu = 0.0
        self._waiting_since: list[tuple[float, float] | None] = [None, None]
        self._idle = self._peak = resident_bytes(probe.pid)

    async def watch(self) -> Seen:
        """Watch until stdin ends."""
        await self._ask(await self._connect())
        print("watching", flush=True)
        tasks = [asyncio.create_task(each) for each in (self._keep_asking(), self._ask_afresh(), self._watch_memory())]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for prober, since in enumerate(self._waiting_since):
            if since is not None:
                self._end(prober)
        return Seen(self._silence, self._silence_cpu, self._idle, self._peak)

    async def _keep_asking(self) -> None:
        connection: Connection | None = None
        while True:
            self._begin(0)
            try:
                connection = connection or await self._connect()
                await self._ask(connection)
            except (OSError, ConnectionLost):
                connection = None
                await asyncio.sleep(INTERVAL)
                continue
            await asyncio.sleep(self._end(0) + INTERVAL - time.perf_counter())

    async def _ask_afresh(self) -> None:
        while True:
            self._begin(1)
            try:
                connection = await self._connect()
                await self._ask(connection)
            except (OSError, ConnectionLost):
                await asyncio.sleep(INTERVAL)
                continue
            connection.close()
            await asyncio.sleep(self._end(1) + FRESH_INTERVAL - time.perf_counter())

    async def _watch_memory(self) -> None:
        while True:
            self._peak = max(self._peak, resident_bytes(self._probe.pid))
            await asyncio.sleep(INTERVAL)

    async def _connect(self) -> Connection:
        return await client.connect(self._probe.host, self._probe.port)

    async def _ask(self, connection: Connection) -> None:
        answer = await connection.ask(self._request)
        if answer.status != 200:
            raise ConnectionLost(f"/health answered {answer.status}")

    def _begin(self, prober: int) -> None:
        if self._waiting_since[prober] is None:
            self._waiting_since[prober] = (time.perf_counter(), cpu_seconds(self._probe.pid))

    def _end(self, prober: int) -> float:
        """Note the answer; return the time of the request."""
        waiting = self._waiting_since[prober]
        assert waiting is not None
        since, cpu = waiting
        self._silence = max(self._silence, time.perf_counter() - since)
        self._silence_cpu = max(self._silence_cpu, cpu_seconds(self._probe.pid) - cpu)
        self._waiting_since[prober] = None
        return since


class Watch:
    """A prober in its own process."""

    def __init__(self, probe: Probe) -> None:
        command = [sys.executable, "-m", "bench.prober"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(probe) + b"\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise NotStarted("the prober did not reach the proxy")

    def stop(self) -> Seen:
        """Stop watching, and return the measurements."""
        seen, _ = self._process.communicate()
        return msgspec.json.decode(seen, type=Seen)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def watching(probe: Probe) -> Iterator[Watch]:
    """Watch a proxy until the block ends. Raises NotStarted if it does not answer."""
    watch = Watch(probe)
    try:
        yield watch
    finally:
        watch.kill()


def main() -> None:
    probe = msgspec.json.decode(sys.stdin.buffer.readline(), type=Probe)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(Prober(probe).watch())))


if __name__ == "__main__":
    main()
