"""The log of the scripted Dify: requests, stop calls and runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from openai_dify_proxy_demo.waitable_log import WaitableLog

LOG_LENGTH = 20_000
"""The maximum number of entries of each kind; the oldest are dropped."""

_T = TypeVar("_T")

RunState = Literal["running", "finished", "failed", "stopped", "dropped"]


@dataclass(frozen=True)
class LoggedRequest:
    """One HTTP request. `app` is None for an unknown key, `body` is None without a JSON body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key: str
    app: str | None
    dialect: str | None
    body: Any
    at: float


@dataclass(frozen=True)
class LoggedStop:
    """One call of a stop route. `effective` is true if it stopped a run."""

    task_id: str
    user: str
    app: str
    effective: bool
    at: float


@dataclass
class LoggedRun:
    """One run. Times are readings of `time.monotonic`."""

    task_id: str
    app: str
    mode: str
    dialect: str
    user: str
    question: str
    inputs: Mapping[str, Any]
    conversation_id: str
    message_id: str
    workflow_run_id: str
    streaming: bool
    started_at: float = field(default_factory=time.monotonic)
    state: RunState = "running"
    finished_at: float | None = None
    disconnected_at: float | None = None
    """When the client disconnected before the end of the stream."""
    first_event_at: float | None = None
    """When the first event with the task id was sent."""
    answer: str = ""
    history: Sequence[tuple[str, str]] = ()
    """Role and text of the earlier messages that the model received, in order."""


class Entries(deque[_T]):
    """A deque that other threads can iterate while it grows. Iteration works on a snapshot."""

    def __iter__(self) -> Iterator[_T]:
        while True:
            try:
                return iter(list(super().__iter__()))
            except RuntimeError:  # another thread added an entry meanwhile
                continue


class DemoLog(WaitableLog):
    """The log of one scripted Dify."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Entries[LoggedRequest] = Entries(maxlen=LOG_LENGTH)
        self.stops: Entries[LoggedStop] = Entries(maxlen=LOG_LENGTH)
        self.runs: Entries[LoggedRun] = Entries(maxlen=LOG_LENGTH)
        self.connections = 0
        """The number of connections that have a slot, idle ones included."""
        self.waiting_connections = 0
        """The number of connections that wait for a slot."""
        self.peak_connections = 0
        """The highest number of connections that had a slot at the same time."""
        self.active: dict[str, LoggedRun] = {}
        """The runs whose model is at work, by task id. Those whose client has disconnected are among them."""
        self.peak_active = 0
        """The highest number of runs since `clear` whose model was at work at the same time."""
        self._earlier: frozenset[str] = frozenset()
        """The task ids of the runs that were active at `clear`."""

    @property
    def stopped_runs(self) -> list[LoggedRun]:
        """The runs that stop calls cut. `finished_at` is when the model stopped."""
        return [run for run in self.runs if run.state == "stopped"]

    def start(self, run: LoggedRun) -> None:
        """Add a run whose model begins to work."""
        self.runs.append(run)
        self.active[run.task_id] = run
        self.peak_active = max(self.peak_active, len(self.active.keys() - self._earlier))

    def clear(self) -> None:
        """Delete all entries. The numbers of open requests and connections and the active runs are unchanged."""
        self.change(self._clear)

    def summary(self) -> str:
        runs = [(run.app, run.state, run.disconnected_at is not None) for run in self.runs]
        paths = [(request.method, request.path) for request in self.requests]
        connections = f"connections {self.connections} and {self.waiting_connections} waiting"
        return f"{connections}, runs {runs[-5:]}, stops {list(self.stops)[-5:]}, requests {paths[-5:]}"

    def _clear(self) -> None:
        for entries in (self.requests, self.stops, self.runs):
            entries.clear()
        self.peak_connections, self.peak_active = self.connections, 0
        self._earlier = frozenset(self.active)
