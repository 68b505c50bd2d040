"""Checks whether Dify can be reached, for frequent readiness requests and for the metrics.

A check needs a free slot, so that it takes no connection from turns or stop calls. Without one, a Dify counts as
reachable while it is answering turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.turns.admission.gate import GateStatus
from openai_dify_proxy.turns.admission.service import Admission
from openai_dify_proxy.upstream.dify import DifyClient

FRESH_SECONDS = 5.0
TIMEOUT_SECONDS = 4.0
RETRY_SECONDS = 0.1
"""How often a check that finds no slot looks again whether a turn is answered."""

log = structlog.get_logger(__name__)


class Readiness:
    """Checks every Dify, at most once per ``FRESH_SECONDS``. ``now`` is a clock in seconds.

    ``busy`` is true if a Dify had no slot for the check, or did not answer it, and was answering turns. ``problems``
    has, by URL, the problem of each Dify without addresses, or None if it answers. ``draining`` is true once the server
    stops.
    """

    def __init__(self, dify: DifyClient, urls: Iterable[str], now: Callable[[], float], admission: Admission) -> None:
        self.busy = False
        self.draining = False
        self._admission = admission
        self._dify = dify
        self._urls = sorted(set(urls))
        self._now = now
        self._until = 0.0
        self.problems: dict[str, str | None] = {}
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Bring ``busy`` and ``problems`` up to date."""
        async with self._lock:
            if self._now() >= self._until:
                self.busy = False
                problems = await asyncio.gather(*map(self._ask, self._urls))
                self.problems = dict(zip(self._urls, problems, strict=True))
                self._until = self._now() + FRESH_SECONDS

    @property
    def gates(self) -> list[GateStatus]:
        """The status of each Dify that has a limit."""
        statuses = map(self._admission.status, self._urls)
        return [status for status in statuses if status is not None]

    async def _ask(self, url: str) -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._slot(url) as free:
                if free:
                    await self._dify.welcome(url)
                else:
                    self.busy = True
        except TimeoutError:
            if self._admission.answers(url):
                self.busy = True
                return None
            return "Dify does not answer."
        except ProxyError as error:
            log.warning("readiness_check_failed", url=url, detail=error.log)
            return error.message
        return None

    @asynccontextmanager
    async def _slot(self, url: str) -> AsyncIterator[bool]:
        """Yield whether the block has a slot. Without one, Dify is answering turns, here or in other processes."""
        while (slot := self._admission.try_borrow(url)) is None:
            if self._admission.answers(url) or self._admission.used_by_others(url):
                yield False
                return
            await asyncio.sleep(RETRY_SECONDS)
        try:
            yield True
        finally:
            slot.leave()
