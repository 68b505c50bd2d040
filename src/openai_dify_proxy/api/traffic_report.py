"""Reports what this process has served, for the console."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from openai_dify_proxy.telemetry.records import RequestRecords
from openai_dify_proxy.telemetry.traffic import STEP_SECONDS, RecentRequest, Traffic, percentile
from openai_dify_proxy.turns.admission.gate import GateStatus

if TYPE_CHECKING:
    from openai_dify_proxy.api.services import Services

PENDING_SECONDS = 30.0
"""How old the number of pending uploads may be: counting them reads the picture store."""


class TrafficPoint(Struct):
    """A step of ``step_seconds``; first texts are in seconds."""

    at: int
    requests: int
    turns: int
    errors: dict[str, int]
    first_text_p50: float | None
    first_text_p99: float | None


class DifyTraffic(Struct):
    """A Dify: its problem, if any, and its slots and queue, if it has a limit."""

    url: str
    problem: str | None
    gate: GateStatus | None


class TrafficReport(Struct, kw_only=True):
    """``process`` is the id of the process that answers; other workers have traffic of their own.

    ``pending_uploads`` is None without an IPFS node.
    """

    process: int
    now: float
    step_seconds: int
    points: list[TrafficPoint]
    recent: list[RecentRequest]
    open_streams: int
    difys: list[DifyTraffic]
    state_faults: int
    pending_uploads: int | None


class ConsoleTraffic:
    """Reports the traffic, and the requests of ``records`` that are open."""

    def __init__(self, traffic: Traffic, records: RequestRecords) -> None:
        self._traffic = traffic
        self._records = records
        self._pending: int | None = None
        self._counted_at = 0.0

    async def report(self, services: Services) -> TrafficReport:
        """Return the traffic of this process until now."""
        self._records.count()
        return TrafficReport(
            process=os.getpid(),
            now=time.time(),
            step_seconds=STEP_SECONDS,
            points=list(self._points()),
            recent=self._traffic.recent(),
            open_streams=self._records.open_streams,
            difys=list(_difys(services)),
            state_faults=services.store.faults,
            pending_uploads=await self._pending_uploads(services),
        )

    def _points(self) -> Iterator[TrafficPoint]:
        for step in self._traffic.steps():
            texts = step.first_texts
            p50, p99 = percentile(texts, 0.5), percentile(texts, 0.99)
            yield TrafficPoint(step.at, step.requests, step.turns, step.errors, p50, p99)

    async def _pending_uploads(self, services: Services) -> int | None:
        if services.images.uploads is None:
            return None
        if self._pending is None or time.monotonic() - self._counted_at > PENDING_SECONDS:
            self._pending = len(await services.images.pictures.store.pending())
            self._counted_at = time.monotonic()
        return self._pending


def _difys(services: Services) -> Iterator[DifyTraffic]:
    for url in services.apps.urls:
        yield DifyTraffic(url, services.readiness.problems.get(url), services.turns.admission.status(url))
