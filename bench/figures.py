"""The figures: the load of each, its computation from results, and the proxy's goals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.load import Kind, Result
from bench.scenarios import Scenario

LoadName = Literal["request", "paced", "burst", "first-text", "memory", "conversation"]
StateName = Literal["memory", "SQLite", "Valkey"]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load without its target; see `load.Load`."""

    kind: Kind
    scenario: Scenario
    stream: bool
    connections: int
    requests: int = 0


FULL: Mapping[LoadName, LoadPlan] = {
    "memory": LoadPlan("held", Scenario(events=10, size=8, hold=True), stream=True, connections=1000),
    "request": LoadPlan("loop", Scenario(events=50, size=40), stream=False, connections=8, requests=2000),
    "paced": LoadPlan("paced", Scenario(events=200, size=8, gap_ms=20), stream=True, connections=100),
    "burst": LoadPlan("loop", Scenario(events=200, size=8), stream=True, connections=8, requests=500),
    "first-text": LoadPlan("first_text", Scenario(events=3, size=8), stream=True, connections=1, requests=400),
    "conversation": LoadPlan(
        "chats", Scenario(events=50, size=40, converse=True), stream=False, connections=1000, requests=4
    ),
}
QUICK: Mapping[LoadName, LoadPlan] = {
    "memory": LoadPlan("held", Scenario(events=10, size=8, hold=True), stream=True, connections=100),
    "request": LoadPlan("loop", Scenario(events=50, size=40), stream=False, connections=8, requests=300),
    "paced": LoadPlan("paced", Scenario(events=75, size=8, gap_ms=20), stream=True, connections=20),
    "burst": LoadPlan("loop", Scenario(events=200, size=8), stream=True, connections=8, requests=100),
    "first-text": LoadPlan("first_text", Scenario(events=3, size=8), stream=True, connections=1, requests=100),
    "conversation": LoadPlan(
        "chats", Scenario(events=50, size=40, converse=True), stream=False, connections=200, requests=2
    ),
}


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


REQUEST = Figure("request", "CPU per request, client not streaming", "µs", Goal(10, times_nginx=True))
PACED = Figure("paced", "CPU per event, paced", "µs", Goal(4, times_nginx=True))
BURST = Figure("burst", "CPU per event, in a burst", "µs", Goal(8, times_nginx=True))
FIRST_P50 = Figure("first-text", "added time to first text, p50", "ms")
FIRST_P99 = Figure("first-text", "added time to first text, p99", "ms")
IDLE = Figure("memory", "memory, idle", "MB", Goal(80, times_nginx=False))
PER_STREAM = Figure("memory", "memory per open stream", "kB", Goal(60, times_nginx=False))
CHAT = Figure("conversation", "CPU per later turn, state in memory", "µs")
CHAT_SQLITE = Figure("conversation", "the same with SQLite", "× memory", Goal(1.3, times_nginx=False))
CHAT_VALKEY = Figure("conversation", "the same with Valkey", "× memory", Goal(2, times_nginx=False))


def read(load: LoadName, result: Result, direct: Result | None) -> dict[Figure, float]:
    """Return the figures of one result. `direct` is the result of the same load on the upstream itself."""
    match load:
        case "request":
            return {REQUEST: result.cpu / result.requests * 1e6}
        case "paced":
            return {PACED: result.cpu / result.events * 1e6}
        case "burst":
            return {BURST: result.cpu / result.events * 1e6}
        case "memory":
            grown = (result.held_bytes - result.idle_bytes) / result.requests
            return {IDLE: result.idle_bytes / 1e6, PER_STREAM: grown / 1e3}
        case "first-text":
            assert direct is not None
            return {
                FIRST_P50: (_percentile(result.first_text, 50) - _percentile(direct.first_text, 50)) * 1e3,
                FIRST_P99: (_percentile(result.first_text, 99) - _percentile(direct.first_text, 99)) * 1e3,
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


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
