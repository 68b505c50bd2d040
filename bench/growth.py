"""Measures how the proxy's cost grows: with the history, the stored conversations, the open streams and the body."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import msgspec

from bench import figures, report, servers
from bench.dialects import Dialect
from bench.figures import ONE_EVENT, LoadPlan, percentile
from bench.growth_load import MESSAGE_BYTES, GrowthLoad, Kind
from bench.load import Target
from bench.prober import Probe, watching
from bench.report import number, verdict
from bench.runs import put_growth_load, put_load
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy.state.store import Operation, Put
from openai_dify_proxy.turns.conversation_entries import ConversationEntry, ConversationRecord

NO_LIMIT = 100_000_000
"""Entries in the state, so that nothing is removed."""

TTL = 30 * 86_400.0

STREAM_GOALS: Mapping[int, tuple[int, int | None]] = {100: (20, None), 1000: (250, 100)}
"""By the number of streams opened at once: the longest first text (p50) and silence of /health, in milliseconds."""

FILL_BATCH = 5000

OWNERS = 20
"""Callers that share the stored conversations."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes to measure, and the number of requests at each."""

    histories: Sequence[int]
    conversations: Sequence[int]
    streams: Sequence[int]
    bodies: Sequence[int]
    requests: int
    loop: int


FULL = Sizes(
    histories=(0, 20, 100, 400, 2000),
    conversations=(1000, 10_000, 100_000, 1_000_000),
    streams=(1, 100, 1000),
    bodies=(1000, 10_000, 100_000, 1_000_000, 10_000_000),
    requests=10,
    loop=2000,
)
QUICK = Sizes(histories=(20,), conversations=(1000,), streams=(50,), bodies=(100_000,), requests=2, loop=100)


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    headings: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        return f"{self.title}\n\n{report.markdown(self.headings, self.rows)}\n"


class Growth:
    """One run. Each table has its own proxies."""

    def __init__(self, upstream_url: str, sizes: Sizes, *, for_target: set[int]) -> None:
        self._upstream_url = upstream_url
        self._sizes = sizes
        self._processors = for_target

    def tables(self) -> Iterator[Table]:
        yield self._by_history()
        yield self._by_conversations()
        yield self._by_streams()
        yield self._by_body()

    def _by_history(self) -> Table:
        rows = []
        with self._proxy() as proxy:
            for size in self._sizes.histories:
                grown = put_growth_load(self._load("history", proxy, size))
                ms = grown.cpu * 1e3
                goal = 8 if size == 400 else None
                met = verdict(None if goal is None else ms <= goal)
                rows.append(
                    [str(size), number(ms), number(grown.continued_cpu * 1e3), "" if goal is None else f"≤ {goal}", met]
                )
        headings = ["earlier messages", "new conversation", "continued", "goal (new)", "reached"]
        return Table(f"CPU per request (ms), with earlier messages of {MESSAGE_BYTES} bytes", headings, rows)

    def _by_conversations(self) -> Table:
        rows = []
        with TemporaryDirectory(prefix="bench-state-") as directory:
            state = Path(directory, "state.db")
            before = 0
            for size in self._sizes.conversations:
                asyncio.run(_fill(state, size - before))
                before = size
                rows.append([f"{size:,}", *self._requests(state, NO_LIMIT)])
            # One entry leads to a conversation, one describes it.
            rows.append([f"{before:,}, over STATE_MAX_ENTRIES", *self._requests(state, before)])
        headings = ["stored conversations", "CPU (µs)", "p50 (ms)", "p99 (ms)", "longest (ms)"]
        return Table("Per request, whole answer of one event, SQLite", headings, rows)

    def _requests(self, state: Path, max_entries: int) -> list[str]:
        settings = {"STATE_URL": f"sqlite:///{state}", "STATE_MAX_ENTRIES": str(max_entries)}
        plan = LoadPlan("loop", ONE_EVENT, stream=False, connections=8, requests=self._sizes.loop)
        with self._proxy(settings) as proxy:
            result = put_load(plan, proxy, self._upstream_url)
        times = [percentile(result.durations, 50), percentile(result.durations, 99), max(result.durations)]
        return [number(result.cpu / result.requests * 1e6), *(number(each * 1e3) for each in times)]

    def _by_streams(self) -> Table:
        rows = []
        for size in self._sizes.streams:
            with self._proxy() as proxy, watching(_probe(proxy)) as watch:
                grown = put_growth_load(self._load("at_once", proxy, size))
                seen = watch.stop()
            silence = seen.silence * 1e3
            first = [percentile(grown.first_text, percent) * 1e3 for percent in (50, 99)]
            with servers.nginx(self._upstream_url, processors=self._processors) as (url, pid):
                nginx = Target(name="nginx", url=url, dialect=Dialect.dify, pid=pid)
                limit = put_growth_load(self._load("at_once", nginx, size))
            first_goal, silence_goal = STREAM_GOALS.get(size, (None, None))
            goals = [(first[0], first_goal, "p50"), (silence, silence_goal, "silence")]
            met = None if first_goal is None else all(limit is None or got <= limit for got, limit, _ in goals)
            rows.append(
                [
                    f"{size}",
                    *map(number, first),
                    *(number(percentile(limit.first_text, percent) * 1e3) for percent in (50, 99)),
                    number(silence),
                    number(seen.silence_cpu * 1e3),
                    number(grown.bytes_per_stream / 1e3),
                    ", ".join(f"{name} ≤ {limit}" for _, limit, name in goals if limit is not None),
                    verdict(met),
                ]
            )
        headings = [
            "streams opened at once",
            "first text p50 (ms)",
            "p99",
            "nginx p50",
            "nginx p99",
            "silence of /health (ms)",
            "CPU in it (ms)",
            "kB per stream",
            "goal",
            "reached",
        ]
        return Table("Open streams", headings, rows)

    def _by_body(self) -> Table:
        rows = []
        with self._proxy() as proxy:
            for size in self._sizes.bodies:
                cpu = put_growth_load(self._load("body", proxy, size)).cpu
                rows.append([f"{size:,}", number(cpu * 1e3), number(cpu * 1e9 / size)])
        return Table("CPU per request with one message", ["bytes", "ms", "ns per byte"], rows)

    def _load(self, kind: Kind, target: Target, size: int) -> GrowthLoad:
        return GrowthLoad(
            kind=kind, target=target, upstream_url=self._upstream_url, size=size, requests=self._sizes.requests
        )

    @contextmanager
    def _proxy(self, settings: Mapping[str, str] = servers.NO_SETTINGS) -> Iterator[Target]:
        """Run a proxy that has answered once."""
        with servers.proxy(self._upstream_url, processors=self._processors, settings=settings) as (url, pid):
            target = Target(name="proxy", url=url, dialect=Dialect.openai, pid=pid)
            put_load(figures.WARM_UP, target, self._upstream_url)
            yield target


def _probe(target: Target) -> Probe:
    address = urlsplit(target.url)
    assert address.hostname is not None
    assert address.port is not None
    assert target.pid is not None
    return Probe(address.hostname, address.port, target.pid)


async def _fill(file: Path, conversations: int) -> None:
    """Add conversations to a state, as the proxy stores them: an entry for its history, and a record."""
    store = SqliteStore(file, max_entries=NO_LIMIT)
    encode = msgspec.msgpack.Encoder().encode
    numbers = random.Random(conversations)
    for start in range(0, conversations, FILL_BATCH):
        operations: list[Operation] = []
        for index in range(start, min(start + FILL_BATCH, conversations)):
            # Keys in ascending order are written several times faster than random ones.
            digest = f"{(index << 64) // conversations:016x}{numbers.randbytes(24).hex()}"
            owner = f"key-{index % OWNERS}"
            name, system = str(uuid.UUID(int=numbers.getrandbits(128))), numbers.randbytes(8)
            entry = ConversationEntry(name, time.time(), system)
            record = ConversationRecord(f"conversation:{digest}", time.time(), system)
            operations += [
                Put(record.head, encode(entry), TTL, owner),
                Put(f"owned:{digest}", encode(record), TTL, owner),
            ]
        await store.run(*operations)
    await store.close()
