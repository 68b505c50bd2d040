"""The traffic of the last half hour, for the console: counts in steps of ten seconds, and the last requests.

It belongs to one process and is bounded. It holds outcomes and reasons, never text or keys.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator

from msgspec import Struct, field

from openai_dify_proxy.telemetry.records import RequestRecord

STEP_SECONDS = 10
STEPS = 180
RECENT = 200
MAX_SAMPLES = 500
"""First texts per step of which the percentiles are taken."""


class TrafficStep(Struct, eq=False):
    """What ended in one step; ``at`` is its beginning, in seconds since the epoch.

    ``errors`` counts errors by their class.
    """

    at: int
    requests: int = 0
    turns: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    first_texts: array[float] = field(default_factory=lambda: array("f"))


class RecentRequest(Struct, frozen=True):
    """One of the last requests. Times are in seconds, ``at`` since the epoch."""

    id: str
    at: float
    method: str
    route: str
    status: int
    outcome: str
    code: str | None
    reason: str | None
    model: str | None
    app: str
    caller: str
    seconds: float
    first_text: float | None
    queued: float
    tokens: int | None
    price: str | None


class Traffic:
    """A counter of records. Requests of ``ignored`` routes, such as those of monitoring, do not count."""

    def __init__(self, ignored: frozenset[str]) -> None:
        self._ignored = ignored
        self._steps: deque[TrafficStep] = deque(maxlen=STEPS)
        self._recent: deque[RequestRecord] = deque(maxlen=RECENT)

    def __call__(self, record: RequestRecord) -> None:
        if record.route in self._ignored:
            return
        step = self._step(record.began_at + record.seconds)
        if record.kind != "turn":
            step.requests += 1
        if record.app:
            step.turns += 1
        if record.error is not None:
            kind = type(record.error).__name__
            step.errors[kind] = step.errors.get(kind, 0) + 1
        if record.first_text and len(step.first_texts) < MAX_SAMPLES:
            step.first_texts.append(record.first_text - record.started)
        self._recent.append(record)

    def steps(self) -> Iterator[TrafficStep]:
        """Yield the steps in which something ended, oldest first."""
        return iter(list(self._steps))

    def recent(self) -> list[RecentRequest]:
        """Return the last requests, newest first."""
        return [_recent(record) for record in reversed(self._recent)]

    def _step(self, now: float) -> TrafficStep:
        at = int(now) // STEP_SECONDS * STEP_SECONDS
        if not self._steps or self._steps[-1].at < at:
            self._steps.append(TrafficStep(at))
        return self._steps[-1]


def percentile(samples: array[float], share: float) -> float | None:
    """Return the nearest-rank percentile of the samples; None without samples. ``share`` is 0.5 for the median."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _recent(record: RequestRecord) -> RecentRequest:
    error, usage = record.error, record.usage
    return RecentRequest(
        record.id,
        record.began_at,
        record.method,
        record.route,
        record.status or 499,
        record.outcome,
        None if error is None else error.code,
        None if error is None else error.reason,
        record.model,
        record.app,
        record.label or record.caller,
        record.seconds,
        record.first_text_seconds,
        record.queued,
        None if usage is None else usage.total_tokens,
        None if usage is None else usage.price,
    )
