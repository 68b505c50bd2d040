"""The load generator: runs one load on one target and measures the target's CPU time and memory.

`python -m bench.load` reads a `Load` as JSON from stdin and writes a `Result` as JSON to stdout. It reads the target's
CPU clock and memory itself, so that no other process delays the readings. It checks every answer after the measurement.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import chain, count
from typing import Literal, Protocol, Self, TypeVar, assert_never
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench import client
from bench.client import Answer, Connection, ConnectionLost
from bench.dialects import Dialect, WrongAnswer, check, conversation_of, path, request_body, turn_body
from bench.limits import allow_many_connections, cpu_seconds, resident_bytes
from bench.scenarios import Scenario, numbered

Kind = Literal["loop", "paced", "first_text", "held", "chats"]

TURN_SECONDS = 1.2
"""Seconds between the turns of a chat. The proxy may delay a turn that follows the last within a second."""


class Target(msgspec.Struct, frozen=True):
    """A server under load. `pid` is the process to measure, with its children; None measures time only."""

    name: str
    url: str
    dialect: Dialect
    pid: int | None = None
    model: str = "dify"
    key: str = "bench"
    share: int = 1
    """The load is divided by this number."""
    peer: bool = False
    """Whether a failure leaves out the figure instead of ending the run."""


class Load(msgspec.Struct, frozen=True):
    """One load.

    loop: `connections` send `requests` in all, each connection one after the other; without `reuse`, each request has a
    connection of its own. All questions differ.
    paced: each of `connections` reads one stream; the measurement covers the time in which all of them flow.
    first_text: one request after the other, timed to the first text.
    held: `connections` streams are opened, deliver their first event, and stay open.
    chats: each of `connections` has a conversation of `requests` turns, all spread evenly over `TURN_SECONDS`; the
    measurement leaves out the first turns.
    """

    kind: Kind
    target: Target
    upstream_url: str
    scenario: Scenario
    stream: bool
    connections: int
    requests: int
    reuse: bool = True
    time_limit: float = 120


class Result(msgspec.Struct, frozen=True):
    requests: int = 0
    events: int = 0
    cpu: float = 0
    """Seconds of CPU time that the target used for these requests and events."""
    first_text: list[float] = []
    """Seconds from the request to the first text, for each request."""
    durations: list[float] = []
    """Seconds from the request to the end of the answer, for each request (`loop` only)."""
    idle_bytes: int = 0
    held_bytes: int = 0
    """Resident memory with all streams open; `idle_bytes` is the memory before."""


class Runner:
    """Runs one load on its target."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._host, self._port = _address(load.target.url)
        self._path = urlsplit(load.target.url).path.rstrip("/") + path(load.target.dialect)
        self._request = self._http_request(
            request_body(load.target.dialect, load.scenario, model=load.target.model, stream=load.stream)
        )
        # Another run on the same target begins elsewhere.
        self._numbers = count(time.time_ns() // 1_000_000 % 9_000_000)

    async def run(self) -> Result:
        match self._load.kind:
            case "loop":
                return await self._loop()
            case "paced":
                return await self._paced()
            case "first_text":
                return await self._first_text()
            case "held":
                return await self._held()
            case "chats":
                return await self._chats()
            case _:
                assert_never(self._load.kind)

    async def _loop(self) -> Result:
        connections = await self._connect()
        await self._share(connections, len(connections) * 2)
        before = self._cpu()
        answers = await self._share(connections, self._load.requests)
        cpu = self._cpu() - before
        self._check(answers)
        events = len(answers) * self._load.scenario.events
        durations = [answer.ended_at - answer.asked_at for answer in answers]
        return Result(requests=len(answers), events=events, cpu=cpu, durations=durations)

    async def _share(self, connections: list[Connection], requests: int) -> list[Answer]:
        """Send `requests` over all connections, each at its own pace."""
        tickets = iter(range(requests))

        async def ask(connection: Connection) -> list[Answer]:
            return [await self._ask(connection, self._next_request()) for _ in tickets]

        async def ask_afresh(_connected: Connection) -> list[Answer]:
            answers = []
            for _ in tickets:
                connection = await client.connect(self._host, self._port)
                answers.append(await self._ask(connection, self._next_request()))
                connection.close()
            return answers

        asking = map(ask if self._load.reuse else ask_afresh, connections)
        return list(chain.from_iterable(await asyncio.gather(*asking)))

    async def _paced(self) -> Result:
        scenario = self._load.scenario
        control = await Control.of(self._load.upstream_url)
        connections = await self._connect()
        started = time.perf_counter()
        gap = scenario.gap_ms / 1000
        for index, connection in enumerate(connections):
            # Spread the starts over one gap: the events of streams in step would share one wake-up.
            await asyncio.sleep(started + gap * index / len(connections) - time.perf_counter())
            connection.ask(self._next_request())
        await asyncio.gather(*(connection.first_text for connection in connections))
        before, events_before = self._cpu(), await control.events_sent()
        await asyncio.sleep(started + gap * (scenario.events - 5) - time.perf_counter())
        cpu, events = self._cpu() - before, await control.events_sent() - events_before
        answers = await asyncio.gather(*(connection.whole for connection in connections))
        self._check(answers)
        for answer in answers:
            assert answer.first_text_at is not None
            if answer.first_text_at > answer.asked_at + gap * scenario.events / 2:
                raise WrongAnswer("the answer arrived at once instead of as a stream")
        if events < scenario.events * len(connections) / 2:
            raise WrongAnswer("the streams started too late to be measured; use fewer connections")
        return Result(requests=len(answers), events=events, cpu=cpu)

    async def _first_text(self) -> Result:
        (connection,) = await self._connect()
        answers = [await self._ask(connection, self._next_request()) for _ in range(self._load.requests)]
        self._check(answers)
        return Result(requests=len(answers), first_text=[seconds_to_first_text(answer) for answer in answers])

    async def _held(self) -> Result:
        control = await Control.of(self._load.upstream_url)
        idle = self._memory()
        connections = await self._connect()
        at_once = asyncio.Semaphore(50)

        async def open_stream(connection: Connection) -> None:
            async with at_once:
                connection.ask(self._next_request())
                await connection.first_text

        await asyncio.gather(*map(open_stream, connections))
        held = self._memory()
        await control.release()
        self._check(await asyncio.gather(*(connection.whole for connection in connections)))
        return Result(requests=len(connections), idle_bytes=idle, held_bytes=held)

    async def _chats(self) -> Result:
        load = self._load
        connections = await self._connect()
        started = time.perf_counter()

        async def converse(chat: int, connection: Connection) -> list[Answer]:
            answers = []
            for turn in range(1, load.requests + 1):
                body = turn_body(load.scenario, chat, turn, model=load.target.model)
                due = started + (turn - 1 + chat / len(connections)) * TURN_SECONDS
                await asyncio.sleep(due - time.perf_counter())
                answers.append(await self._ask(connection, self._http_request(body)))
            return answers

        chats = [asyncio.create_task(converse(*each)) for each in enumerate(connections)]
        await asyncio.sleep(started + TURN_SECONDS - time.perf_counter())
        before = self._cpu()
        answers = await asyncio.gather(*chats)
        cpu = self._cpu() - before
        for of_chat in answers:
            self._check(of_chat)
            if len({conversation_of(answer.body) for answer in of_chat}) > 1:
                raise WrongAnswer("a later turn did not continue its conversation")
        return Result(requests=len(connections) * (load.requests - 1), cpu=cpu)

    def _next_request(self) -> bytes:
        """Return the request with a question that no request had before."""
        return numbered(self._request, next(self._numbers))

    def _http_request(self, body: bytes) -> bytes:
        return client.request("POST", f"{self._host}:{self._port}", self._path, body=body, key=self._load.target.key)

    async def _ask(self, connection: Connection, request: bytes) -> Answer:
        answer = await connection.ask(request)
        if answer.status != 200:  # the other checks cost more, and follow the measurement
            self._check([answer])
        return answer

    async def _connect(self) -> list[Connection]:
        at_once = asyncio.Semaphore(50)

        async def connect() -> Connection:
            async with at_once:
                return await client.connect(self._host, self._port)

        return await asyncio.gather(*(connect() for _ in range(self._load.connections)))

    def _check(self, answers: list[Answer]) -> None:
        load = self._load
        for answer in answers:
            check(load.target.dialect, load.scenario, stream=load.stream, status=answer.status, body=answer.body)

    def _cpu(self) -> float:
        return 0 if self._load.target.pid is None else cpu_seconds(self._load.target.pid)

    def _memory(self) -> int:
        return 0 if self._load.target.pid is None else resident_bytes(self._load.target.pid)


class Control:
    """The control routes of the upstream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def of(cls, upstream_url: str) -> Self:
        return cls(await client.connect(*_address(upstream_url)))

    async def events_sent(self) -> int:
        return int((await self._connection.ask(client.request("GET", "upstream", "/bench/events"))).body)

    async def release(self) -> None:
        await self._connection.ask(client.request("POST", "upstream", "/bench/release"))


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def seconds_to_first_text(answer: Answer) -> float:
    assert answer.first_text_at is not None
    return answer.first_text_at - answer.asked_at


class TimeLimited(Protocol):
    """A load with a time limit in seconds."""

    @property
    def time_limit(self) -> float: ...


_Load = TypeVar("_Load", bound=TimeLimited)


def run_from_stdin(kind: type[_Load], run: Callable[[_Load], Awaitable[msgspec.Struct]]) -> None:
    """Read a load of this kind from stdin and write its result to stdout, both as JSON. Exits with a failure's text."""

    async def run_in_time(load: _Load) -> msgspec.Struct:
        async with asyncio.timeout(load.time_limit):
            return await run(load)

    allow_many_connections()
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=kind)
    gc.disable()  # a collection would delay the clock readings; the process is short-lived
    try:
        result = uvloop.run(run_in_time(load))
    except (WrongAnswer, ConnectionLost, TimeoutError, OSError) as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    run_from_stdin(Load, lambda load: Runner(load).run())
