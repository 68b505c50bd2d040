"""The figures: the load of each, its computation from results, and the proxy's goals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.load import Kind, Result
from bench.scenarios import Scenario

LoadName = Literal["request", "request-50", "request-new", "paced", "burst", "first-text", "memory", "conversation"]
StateName = Literal["memory", "SQLite", "Valkey"]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load without its target; see `load.Load`."""

    kind: Kind
    scenario: Scenario
    stream: bool
    connections: int
    requests: int = 0
    reuse: bool = True


ONE_EVENT = Scenario(events=1, size=40)
FIFTY_EVENTS = Scenario(events=50, size=40)
BURST_EVENTS = Scenario(events=200, size=8)
HELD = Scenario(events=10, size=8, hold=True)
FEW_EVENTS = Scenario(events=3, size=8)
CHAT_EVENTS = Scenario(events=50, size=40, converse=True)

FULL: Mapping[LoadName, LoadPlan] = {
    "memory": LoadPlan("held", HELD, stream=True, connections=1000),
    "request": LoadPlan("loop", ONE_EVENT, stream=False, connections=8, requests=2000),
    "request-50": LoadPlan("loop", FIFTY_EVENTS, stream=False, connections=8, requests=2000),
    "request-new": LoadPlan("loop", ONE_EVENT, stream=False, connections=8, requests=2000, reuse=False),
    "paced": LoadPlan("paced", Scenario(events=200, size=8, gap_ms=20), stream=True, connections=100),
    "burst": LoadPlan("loop", BURST_EVENTS, stream=True, connections=8, requests=500),
    "first-text": LoadPlan("first_text", FEW_EVENTS, stream=True, connections=1, requests=400),
    "conversation": LoadPlan("chats", CHAT_EVENTS, stream=False, connections=1000, requests=4),
}
QUICK: Mapping[LoadName, LoadPlan] = {
    "memory": LoadPlan("held", HELD, stream=True, connections=100),
    "request": LoadPlan("loop", ONE_EVENT, stream=False, connections=8, requests=300),
    "request-50": LoadPlan("loop", FIFTY_EVENTS, stream=False, connections=8, requests=300),
    "request-new": LoadPlan("loop", ONE_EVENT, stream=False, connections=8, requests=300, reuse=False),
    "paced": LoadPlan("paced", Scenario(events=75, size=8, gap_ms=20), stream=True, connections=20),
    "burst": LoadPlan("loop", BURST_EVENTS, stream=True, connections=8, requests=100),
    "first-text": LoadPlan("first_text", FEW_EVENTS, stream=True, connections=1, requests=100),
    "conversation": LoadPlan("chats", CHAT_EVENTS, stream=False, connections=200, requests=2),
}

WARM_UP = LoadPlan("loop", FEW_EVENTS, stream=False, connections=1, requests=40)


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper limit: a multiple of nginx's figure, or an absolute value."""

    limit: float
    times_nginx: bool

    def __str__(self) -> str:
        return f"≤ {self.limit:g} × nginx" if self.times_nginx else f"≤ {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    load: LoadName
    name: str
    unit: str
    goal: Goal | None = None
    times_nginx: bool = False
    """Whether the figure is compared with nginx's."""


REQUEST = Figure(
    "request", "CPU per request, whole answer of one event", "µs", Goal(5, times_nginx=True), times_nginx=True
)
REQUEST_50 = Figure("request-50", "the same, an answer of 50 events", "µs", times_nginx=True)
REQUEST_NEW = Figure("request-new", "the same, a connection for each request", "µs", times_nginx=True)
PACED = Figure("paced", "CPU per event, paced", "µs", Goal(2.2, times_nginx=True), times_nginx=True)
BURST = Figure("burst", "CPU per event, in a burst", "µs", Goal(2, times_nginx=True), times_nginx=True)
REQUESTS: Mapping[LoadName, Figure] = {"request": REQUEST, "request-50": REQUEST_50, "request-new": REQUEST_NEW}
EVENTS: Mapping[LoadName, Figure] = {"paced": PACED, "burst": BURST}
FIRST_P50 = Figure("first-text", "added time to first text, p50", "ms")
FIRST_P99 = Figure("first-text", "added time to first text, p99", "ms")
IDLE = Figure("memory", "memory, idle", "MB", Goal(60, times_nginx=False))
PER_STREAM = Figure("memory", "memory per open stream", "kB", Goal(20, times_nginx=False))
CHAT = Figure("conversation", "CPU per later turn, state in memory", "µs")
CHAT_SQLITE = Figure("conversation", "the same with SQLite", "× memory", Goal(1.1, times_nginx=False))
CHAT_VALKEY = Figure("conversation", "the same with Valkey", "× memory", Goal(2, times_nginx=False))


def read(load: LoadName, result: Result, direct: Result | None) -> dict[Figure, float]:
    """Return the figures of one result. `direct` is the result of the same load on the upstream itself."""
    match load:
        case "request" | "request-50" | "request-new":
            return {REQUESTS[load]: result.cpu / result.requests * 1e6}
        case "paced" | "burst":
            return {EVENTS[load]: result.cpu / result.events * 1e6}
        case "memory":
            grown = (result.held_bytes - result.idle_bytes) / result.requests
            return {IDLE: result.idle_bytes / 1e6, PER_STREAM: grown / 1e3}
        case "first-text":
            assert direct is not None
            return {
                FIRST_P50: (percentile(result.first_text, 50) - percentile(direct.first_text, 50)) * 1e3,
                FIRST_P99: (percentile(result.first_text, 99) - percentile(direct.first_text, 99)) * 1e3,
            }
        case "conversation":
            raise ValueError("read_states reads the load 'conversation'")


def read_states(results: Mapping[StateName, Result]) -> dict[Figure, float]:
    """Return the figures of `conversation` from the results of one round, one for each state backend."""
    cost = {name: result.cpu / result.requests * 1e6 for name, result in results.items()}
    return {
        CHAT: cost["memory"],
        CHAT_SQLITE: cost["SQLite"] / cost["memory"],
        CHAT_VALKEY: cost["Valkey"] / cost["memory"],
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least one value."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
