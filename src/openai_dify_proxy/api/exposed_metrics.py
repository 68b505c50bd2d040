"""The metrics of this process, and the current values that the services add to the counted ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from openai_dify_proxy.telemetry import RequestRecords
from openai_dify_proxy.telemetry.metrics import definitions as d
from openai_dify_proxy.telemetry.metrics.exposition import DIRECTORY, Exposition, Sample
from openai_dify_proxy.telemetry.metrics.request_metrics import Counted, RequestMetrics

if TYPE_CHECKING:  # the services have the metrics
    from openai_dify_proxy.api.services import Services

UPDATE_SECONDS = 1.0
"""How often a process passes its counts on to the others."""

log = structlog.get_logger(__name__)


class Metrics:
    """The metrics of this process. ``open`` says whether everyone may read them."""

    def __init__(self, requests: RequestMetrics, records: RequestRecords, *, open: bool) -> None:  # noqa: A002 - a flag
        self.open = open
        self._requests = requests
        self._records = records
        self._exposition: Exposition | None = None
        self._opening = asyncio.Lock()
        self._updates: asyncio.Task[None] | None = None

    def start(self, services: Services) -> None:
        """Pass the counts on to other processes from now on, if they share their metrics."""
        if DIRECTORY in os.environ:
            self._updates = asyncio.create_task(self._update(services))

    async def close(self) -> None:
        """Pass the last counts on."""
        if self._updates is not None:
            self._updates.cancel()
            await asyncio.wait([self._updates])
        if self._exposition is not None:
            self._exposition.close()

    async def exposition(self, services: Services) -> Exposition:
        """Return the exposition. It is created when it is first needed: it loads prometheus-client."""
        async with self._opening:
            if self._exposition is None:
                self._exposition = await asyncio.to_thread(
                    Exposition, self._take, lambda: current_values(services, self._records)
                )
        return self._exposition

    def _take(self) -> Counted:
        self._records.count()
        return self._requests.take()

    async def _update(self, services: Services) -> None:
        exposition = await self.exposition(services)
        while True:
            try:
                exposition.update()
            except OSError as error:  # for instance, the disk is full
                log.warning("metrics_update_failed", reason=str(error))
            await asyncio.sleep(UPDATE_SECONDS)


def current_values(services: Services, records: RequestRecords) -> Iterable[Sample]:
    """Yield the values of all gauges, and the totals that services count."""
    yield Sample(d.OPEN_REQUESTS, (), len(records.open))
    yield Sample(d.OPEN_STREAMS, (), records.open_streams)
    yield Sample(d.BACKGROUND_RUNS, (), services.background.running)
    yield Sample(d.STATE_FAULTS, (), services.store.faults)
    if services.images.uploads is not None:
        yield Sample(d.IPFS_BACKLOG, (), services.images.uploads.backlog)
    yield from _turns(services)
    for url, problem in services.readiness.problems.items():
        yield Sample(d.DIFY_UP, (dify_label(url),), problem is None)
    for app in services.apps.all.values():
        usable = services.profiles.usable(app.dify)
        if usable is not None:
            yield Sample(d.APP_USABLE, (app.name,), usable)


def _turns(services: Services) -> Iterator[Sample]:
    for url, status in services.turns.admission.statuses.items():
        label = (dify_label(url),)
        yield Sample(d.QUEUED_TURNS, label, status.queued)
        yield Sample(d.RUNNING_TURNS, label, status.in_use)
        yield Sample(d.TURN_LIMIT, label, status.limit)


def dify_label(url: str) -> str:
    """Return the host and port of a Dify, without what a URL may hold besides."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host if parts.port is None else f"{host}:{parts.port}"
