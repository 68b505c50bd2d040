"""A record of requests, stops and runs, which tests read from any thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from openai_dify_proxy_demo.watched import Watched

LOG_LENGTH = 20_000
"""How many requests, stops and runs are remembered."""

_T = TypeVar("_T")

RunState = Literal["running", "finished", "failed", "stopped", "dropped"]


@dataclass(frozen=True)
class LoggedRequest:
    """One HTTP request; `app` is None if its key opens none, `body` None if it has no JSON."""

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
    """One call of a stop route; `effective` if it stopped a run."""

    task_id: str
    user: str
    app: str
    effective: bool
    at: float


@dataclass
class LoggedRun:
    """One generation. Times are those of `time.monotonic`."""

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
    """When the client left before the stream's end."""
    first_event_at: float | None = None
    """When the first event that holds the task's id was sent."""
    answer: str = ""
    history: Sequence[tuple[str, str]] = ()
    """Role and text of the earlier messages that the model was sent, in the order in which it was sent them."""


class Entries(deque[_T]):
    """Entries that may grow while another thread goes through them, which then sees those of its beginning."""

    def __iter__(self) -> Iterator[_T]:
        return iter(list(super().__iter__()))


class DemoLog(Watched):
    """A record that grows while the demo runs. Every method may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Entries[LoggedRequest] = Entries(maxlen=LOG_LENGTH)
        self.stops: Entries[LoggedStop] = Entries(maxlen=LOG_LENGTH)
        self.runs: Entries[LoggedRun] = Entries(maxlen=LOG_LENGTH)

    def clear(self) -> None:
        """Forget everything but the count of open requests."""
        self.change(self._clear)

    def summary(self) -> str:
        runs = [(run.app, run.state, run.disconnected_at is not None) for run in self.runs]
        paths = [(request.method, request.path) for request in self.requests]
        return f"runs {runs[-5:]}, stops {list(self.stops)[-5:]}, requests {paths[-5:]}"

    def _clear(self) -> None:
        for entries in (self.requests, self.stops, self.runs):
            entries.clear()
