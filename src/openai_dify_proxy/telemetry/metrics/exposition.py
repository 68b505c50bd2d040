"""Exposes the metrics of all processes of a server through prometheus-client.

With ``PROMETHEUS_MULTIPROC_DIR`` in the environment, prometheus-client keeps the values in files of that directory,
which all processes read. It looks for the variable when it is imported, so it is imported only when it is needed.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from openai_dify_proxy.telemetry.metrics import definitions as d
from openai_dify_proxy.telemetry.metrics.definitions import METRICS, SHARED, Metric
from openai_dify_proxy.telemetry.metrics.request_metrics import Counted, Distribution, Labels

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_LIVE_FILE = re.compile(r"gauge_live\w+_(\d+)\.db")


class Sample(NamedTuple):
    """The current value of a gauge, or the total of a counter that something else counts."""

    metric: Metric
    labels: Labels
    value: float


class Exposition:
    """The metrics of this process, and of the others that share its directory. Loads prometheus-client.

    ``take`` returns what was counted since its last call, and ``sample`` the current values of all gauges, except
    ``build_info``.
    """

    def __init__(self, take: Callable[[], Counted], sample: Callable[[], Iterable[Sample]]) -> None:
        from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415 - reads the environment

        self._take = take
        self._sample = sample
        self._directory = os.environ.get(DIRECTORY)
        self._registry = CollectorRegistry()
        self._metrics: dict[Metric, Any] = {metric: _make(metric, self._registry) for metric in METRICS}
        self._children: dict[tuple[Metric, Labels], Any] = {}
        self._totals: dict[tuple[Metric, Labels], float] = {}

    def update(self) -> None:
        """Add what was counted since the last update, and set the gauges."""
        counts, distributions = self._take()
        for (metric, labels), amount in counts.items():
            self._child(metric, labels).inc(amount)
        for (metric, labels), found in distributions.items():
            _add(self._child(metric, labels), found)
        for metric, labels, value in self._sample():
            if metric.kind == "gauge":
                self._child(metric, labels).set(value)
            else:
                before = self._totals.get((metric, labels), 0.0)
                self._totals[metric, labels] = value
                self._child(metric, labels).inc(value - before)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, in a format that ``accept``, an ``Accept`` header, names."""
        from prometheus_client import multiprocess  # noqa: PLC0415 - see __init__
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
        from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415

        self._child(d.BUILD_INFO, (_version(), platform.python_version())).set(1)
        self.update()
        registry = self._registry
        if self._directory is not None:
            _forget_dead_processes(Path(self._directory), multiprocess.mark_process_dead)
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, self._directory)  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def close(self) -> None:
        """Add what was counted last, and remove this process's share of the gauges."""
        self.update()
        if self._directory is not None:
            from prometheus_client import multiprocess  # noqa: PLC0415 - see __init__

            multiprocess.mark_process_dead(os.getpid(), self._directory)  # type: ignore[no-untyped-call]

    def _child(self, metric: Metric, labels: Labels) -> Any:
        child = self._children.get((metric, labels))
        if child is None:
            parent = self._metrics[metric]
            child = self._children[metric, labels] = parent.labels(*labels) if labels else parent
        return child


@cache
def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - takes half a megabyte

    return version("openai-dify-proxy")


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    from prometheus_client.metrics import Counter, Gauge, Histogram  # noqa: PLC0415 - reads the environment

    name, text, labels = metric.full_name, metric.help, metric.labels
    if metric.kind == "counter":
        return Counter(name, text, labels, registry=registry)
    if metric.kind == "histogram":
        return Histogram(name, text, labels, registry=registry, buckets=metric.buckets)
    mode: Literal["livemostrecent", "livesum"] = "livemostrecent" if metric in SHARED else "livesum"
    return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)


def _add(histogram: Any, found: Distribution) -> None:
    """Add many values at once, which prometheus-client has no method for. ``pyproject.toml`` bounds its version."""
    for bucket, count in zip(histogram._buckets, found.counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(found.total)


def _forget_dead_processes(directory: Path, mark_dead: Callable[[int, str], None]) -> None:
    """Remove the gauges of processes that were killed. Their counters stay, since counters never decrease."""
    for path in directory.glob("gauge_live*_*.db"):
        found = _LIVE_FILE.fullmatch(path.name)
        if found is not None and not _is_alive(int(found[1])):
            mark_dead(int(found[1]), str(directory))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
