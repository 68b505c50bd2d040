"""The gates of callers whose keys limit their concurrent turns, over all Difys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openai_dify_proxy.settings.values import MAX_CONCURRENT
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.rejections import CallerRejections
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.callers import Caller

MAX_GATES = 1000
"""Beyond so many gates, those without turns are dropped: each of them can be made again."""


class CallerGates:
    """Makes a gate for each limited caller. ``share`` returns its share of the slots that processes share, by name.

    ``max_queued`` turns of one caller may wait.
    """

    def __init__(self, max_queued: int, share: Callable[[str], Share | None]) -> None:
        self._max_queued = max_queued
        self._share = share
        self._gates: dict[str, Gate] = {}

    def __len__(self) -> int:
        return len(self._gates)

    def of(self, caller: Caller) -> Gate | None:
        """Return the gate of ``caller`` with its present limit; None if it has no limit."""
        limit = caller.limits.concurrent_turns
        if limit is None:
            return None
        limit = min(limit, MAX_CONCURRENT)
        gate = self._gates.get(caller.id)
        if gate is None:
            gate = self._gates[caller.id] = self._make(caller.id, limit)
        elif gate.limit != limit:
            gate.change_limit(limit)
        return gate

    async def close(self) -> None:
        """Give up all slots."""
        await asyncio.gather(*(gate.close() for gate in self._gates.values()))

    def _make(self, caller_id: str, limit: int) -> Gate:
        if len(self._gates) >= MAX_GATES:
            self._gates = {name: gate for name, gate in self._gates.items() if gate.in_use or gate.queued}
        name = f"caller:{caller_id}"
        return Gate(
            name, limit=limit, max_queued=self._max_queued, share=self._share(name), rejections=CallerRejections()
        )
