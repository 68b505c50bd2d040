"""Counts closed records, in plain dictionaries."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection

from openai_dify_proxy.errors import UpstreamError
from openai_dify_proxy.telemetry.metrics import definitions as d
from openai_dify_proxy.telemetry.metrics.definitions import OTHER, Metric
from openai_dify_proxy.telemetry.records import RequestRecord

Labels = tuple[str, ...]

MAX_CURRENCIES = 16
"""Currencies with a label of their own; Dify sends what a model's provider is configured with."""

_CURRENCY = re.compile(r"[A-Z]{3,5}")


class Distribution:
    """Values of a histogram: how many fell into each bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


Counted = tuple[dict[tuple[Metric, Labels], float], dict[tuple[Metric, Labels], Distribution]]
"""The amounts of counters, and the values of histograms."""


class RequestMetrics:
    """The counter of records that sums them up, until ``take``.

    ``picture_models`` are the models of pictures that have a label.
    """

    def __init__(self, picture_models: Collection[str] = ()) -> None:
        self._picture_models = frozenset(picture_models)
        self._currencies: set[str] = set()
        self._counts: defaultdict[tuple[Metric, Labels], float]
        self._distributions: dict[tuple[Metric, Labels], Distribution]
        self._clear()

    def _clear(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._counts = defaultdict(float)
        self._distributions = {}

    def take(self) -> Counted:
        """Return what was counted since the last call."""
        counts, distributions = self._counts, self._distributions
        for (method, route, status), number in self._requests.items():
            counts[d.REQUESTS, (method, route, str(status))] = number
        self._clear()
        return counts, distributions

    def __call__(self, record: RequestRecord) -> None:
        if record.kind in ("request", "rejection"):
            route = record.route
            self._requests[record.method if route else OTHER, route or OTHER, record.status or 499] += 1
            self._observe(d.DURATION, (route or OTHER,), record.ended - record.started)
        if record.app:
            self._count_turn(record)
        error = record.error
        if error is not None and isinstance(error, UpstreamError):
            self._counts[d.UPSTREAM_ERRORS, (record.app, type(error).__name__)] += 1
        if record.pictures:
            model = record.model if record.model in self._picture_models else OTHER
            self._counts[d.PICTURES, (model or OTHER,)] += record.pictures

    def _count_turn(self, record: RequestRecord) -> None:
        app = (record.app,)
        counts = self._counts
        counts[d.TURNS, (record.app, record.outcome)] += 1
        if record.first_text:
            self._observe(d.FIRST_TEXT, app, record.first_text - record.started)
            if (overhead := record.overhead) is not None:
                self._observe(d.OVERHEAD, (), overhead)
        if record.queued:
            self._observe(d.QUEUE_WAIT, app, record.queued)
        if record.files:
            counts[d.FILES, app] += record.files
        usage = record.usage
        if usage is not None:
            counts[d.TOKENS, (record.app, "prompt")] += usage.prompt_tokens
            counts[d.TOKENS, (record.app, "completion")] += usage.completion_tokens
            if usage.price is not None:
                self._count_price(record.app, usage.price, usage.currency)
            for currency, price in usage.prices:
                self._count_price(record.app, price, currency)

    def _count_price(self, app: str, price: str, currency: str | None) -> None:
        try:
            amount = float(price)
        except ValueError:
            return
        if 0 < amount < float("inf"):
            self._counts[d.PRICE, (app, self._currency(currency))] += amount

    def _currency(self, name: str | None) -> str:
        if name in self._currencies:
            return name
        if name is None or len(self._currencies) >= MAX_CURRENCIES or not _CURRENCY.fullmatch(name):
            return OTHER
        self._currencies.add(name)
        return name

    def _observe(self, metric: Metric, labels: Labels, value: float) -> None:
        found = self._distributions.get((metric, labels))
        if found is None:
            found = self._distributions[metric, labels] = Distribution(len(metric.buckets))
        found.counts[bisect_left(metric.buckets, value)] += 1
        found.total += value
