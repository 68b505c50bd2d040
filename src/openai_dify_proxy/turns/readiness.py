"""Checks whether Dify can be reached, for frequent readiness requests.

A full Dify answers nothing. It counts as reachable while it is answering turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.turns.admission.gate import GateStatus
from openai_dify_proxy.turns.admission.service import Admission
from openai_dify_proxy.upstream.dify import DifyClient

FRESH_SECONDS = 5.0
TIMEOUT_SECONDS = 4.0

log = structlog.get_logger(__name__)


class Readiness:
    """Checks every Dify, at most once per ``FRESH_SECONDS``. ``now`` is a clock in seconds.

    ``busy`` is true after a check in which a Dify answered only turns.
    """

    def __init__(self, dify: DifyClient, urls: Iterable[str], now: Callable[[], float], admission: Admission) -> None:
        self.busy = False
        self._admission = admission
        self._dify = dify
        self._urls = sorted(set(urls))
        self._now = now
        self._until = 0.0
        self._problem: str | None = None
        self._lock = asyncio.Lock()

    async def problem(self) -> str | None:
        """Return a description of the problem without addresses, or None if every Dify answers."""
        async with self._lock:
            if self._now() >= self._until:
                self._problem = await self._ask()
                self._until = self._now() + FRESH_SECONDS
            return self._problem

    @property
    def gates(self) -> list[GateStatus]:
        """The status of each Dify that has a limit."""
        statuses = map(self._admission.status, self._urls)
        return [status for status in statuses if status is not None]

    async def _ask(self) -> str | None:
        self.busy = False
        if not self._urls:
            return "No Dify is configured."
        problems = await asyncio.gather(*map(self._ask_one, self._urls))
        return next(filter(None, problems), None)

    async def _ask_one(self, url: str) -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._dify.welcome(url)
        except TimeoutError:
            if self._admission.answers(url):
                self.busy = True
                return None
            return "Dify does not answer."
        except ProxyError as error:
            log.warning("readiness_check_failed", url=url, detail=error.log)
            return error.message
        return None
