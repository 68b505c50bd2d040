"""All metrics: their names, labels and buckets. The table in ``docs/metrics.md`` has the same rows.

No label holds what a client sent: routes are templates, and apps and models are configured ones.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

PREFIX = "openai_dify_proxy"

OTHER = "other"
"""Stands for a route, model or currency that has no label of its own."""


class Metric(Struct, frozen=True, eq=False):
    """A metric. The samples of counters end with ``_total``. ``buckets`` are upper bounds, in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{PREFIX}_{self.name}"


_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
_SHORT = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

REQUESTS = Metric("requests", "counter", "Requests by route and status.", ("method", "route", "status"))
DURATION = Metric("request_duration_seconds", "histogram", "Duration of requests.", ("route",), _LONG)
TURNS = Metric("turns", "counter", "Turns and calls for sound, by app and outcome.", ("app", "outcome"))
FIRST_TEXT = Metric("first_text_seconds", "histogram", "Time to the first visible event of a turn.", ("app",), _LONG)
QUEUE_WAIT = Metric("queue_wait_seconds", "histogram", "Waits of turns that had to wait.", ("app",), _LONG)
OVERHEAD = Metric("overhead_seconds", "histogram", "Time that the proxy itself adds to a turn.", (), _SHORT)
TOKENS = Metric("tokens", "counter", "Tokens that Dify counted.", ("app", "kind"))
PRICE = Metric("price", "counter", "Price of turns, as Dify reports it.", ("app", "currency"))
UPSTREAM_ERRORS = Metric("upstream_errors", "counter", "Failures of Dify, Replicate and IPFS.", ("app", "kind"))
FILES = Metric("files", "counter", "Files in requests that reached Dify.", ("app",))
PICTURES = Metric("pictures", "counter", "Pictures that were generated.", ("model",))
STATE_FAULTS = Metric("state_faults", "counter", "Runs of the state that failed.")
OPEN_REQUESTS = Metric("open_requests", "gauge", "Requests that are being answered.")
OPEN_STREAMS = Metric("open_streams", "gauge", "Streams that are being sent.")
BACKGROUND_RUNS = Metric("background_runs", "gauge", "Responses that run in the background.")
QUEUED_TURNS = Metric("queued_turns", "gauge", "Turns that wait for a slot.", ("dify",))
RUNNING_TURNS = Metric("running_turns", "gauge", "Turns that have a slot.", ("dify",))
TURN_LIMIT = Metric("turn_limit", "gauge", "Turns that may run at once, in all processes.", ("dify",))
DIFY_UP = Metric("dify_up", "gauge", "Whether Dify answered when it was checked last.", ("dify",))
APP_USABLE = Metric("app_usable", "gauge", "Whether Dify accepts the key of a configured app.", ("app",))
IPFS_BACKLOG = Metric("ipfs_backlog", "gauge", "Pictures that wait for their upload to IPFS.")
BUILD_INFO = Metric("build_info", "gauge", "The version of the proxy and of Python; always 1.", ("version", "python"))

METRICS = (
    REQUESTS,
    DURATION,
    TURNS,
    FIRST_TEXT,
    QUEUE_WAIT,
    OVERHEAD,
    TOKENS,
    PRICE,
    UPSTREAM_ERRORS,
    FILES,
    PICTURES,
    STATE_FAULTS,
    OPEN_REQUESTS,
    OPEN_STREAMS,
    BACKGROUND_RUNS,
    QUEUED_TURNS,
    RUNNING_TURNS,
    TURN_LIMIT,
    DIFY_UP,
    APP_USABLE,
    IPFS_BACKLOG,
    BUILD_INFO,
)

SHARED = frozenset({TURN_LIMIT, DIFY_UP, APP_USABLE, IPFS_BACKLOG, BUILD_INFO})
"""Gauges of things that all processes share: the last value counts, not the sum."""
