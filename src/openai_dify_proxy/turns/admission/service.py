"""The gates of all Difys and callers with a limit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from secrets import token_bytes

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.admission.auto_limit import PROBES
from openai_dify_proxy.turns.admission.caller_gates import CallerGates
from openai_dify_proxy.turns.admission.conversation_lines import ConversationLines
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate, GateStatus
from openai_dify_proxy.turns.admission.gates import Gates, enter_all
from openai_dify_proxy.turns.admission.limits import has_limit
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.admission.slots import UNLIMITED, Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import Client
from openai_dify_proxy.upstream.dify import DifyClient

PROBE_SECONDS = 0.75
"""How long Dify may take to answer a probe: less than its idle connection stays open, so that all are open at once."""


class Admission:
    """Gives turns their slots. Apps with the same Dify URL share its slots.

    ``store`` is the state that processes share; None if there is only this process. A turn waits ``patience`` seconds
    for its conversation.
    """

    def __init__(
        self,
        settings: Settings,
        urls: Iterable[str],
        store: GuardedStore | None,
        dify: DifyClient,
        *,
        patience: float,
    ) -> None:
        self._dify = dify
        self._patience = patience
        fixed = settings.dify_max_concurrent
        owner = token_bytes(8)

        def share(name: str) -> Share | None:
            return None if store is None else Share(store, name, owner, workers=settings.workers)

        self._callers = CallerGates(settings.max_queued_turns, share)
        self._lines = defaultdict[str, ConversationLines](lambda: ConversationLines(settings.max_queued_turns))
        self._gates = {
            url: Gate(
                url,
                limit=fixed if isinstance(fixed, int) else None,
                max_queued=settings.max_queued_turns,
                probe=lambda url=url: self._probe(url),  # type: ignore[misc]  # mypy infers no type for the default
                share=share(url),
            )
            for url in dict.fromkeys(urls)
            if has_limit(settings, url)
        }
        self._ways: dict[str, Gates] = {url: (gate,) for url, gate in self._gates.items()}

    def admittance(self, url: str, caller: Caller, end_user: str | None, client: Client, wait: TurnWait) -> Admittance:
        """Return the way of a turn to a slot of the Dify at ``url``."""
        line = _line(caller, end_user, wait)
        return Admittance(self._gates_of(caller, url), self._lines[url], line, client, wait, self._patience)

    def check_place(self, url: str, caller: Caller, end_user: str | None, wait: TurnWait) -> None:
        """Raise the error of a full queue if a turn would get neither a slot nor a place in the queue."""
        for gate in self._gates_of(caller, url):
            gate.check_place(_line(caller, end_user, wait))

    @asynccontextmanager
    async def slot(
        self,
        url: str,
        caller: Caller,
        client: Client,
        wait: TurnWait,
        *,
        end_user: str | None = None,
        as_turn: bool = False,
    ) -> AsyncIterator[Slot]:
        """Hold a slot of the Dify at ``url`` within the block, for calls outside a turn.

        One that counts ``as_turn`` also needs one of its caller's concurrent turns. Raises the errors of ``Gate.wait``.
        """
        gates = self._gates_of(caller, url) if as_turn else self._ways.get(url, ())
        slot = await enter_all(gates, _line(caller, end_user, wait), client, wait)
        try:
            yield slot
        finally:
            slot.leave()

    def try_borrow(self, url: str) -> Slot | None:
        """Return a slot of the Dify at ``url`` for one short call, if one is free; it needs no lease."""
        gate = self._gates.get(url)
        return UNLIMITED if gate is None else gate.try_borrow()

    def status(self, url: str) -> GateStatus | None:
        """Return the status of a Dify; None if it has no limit."""
        gate = self._gates.get(url)
        return None if gate is None else gate.status

    @property
    def statuses(self) -> dict[str, GateStatus]:
        """The status of each Dify with a limit, by its URL."""
        return {url: gate.status for url, gate in self._gates.items()}

    def answers(self, url: str) -> bool:
        """Whether the Dify at ``url`` is answering a turn."""
        gate = self._gates.get(url)
        return gate is not None and gate.answers

    def used_by_others(self, url: str) -> bool:
        """Whether other processes have slots of the Dify at ``url``."""
        gate = self._gates.get(url)
        return gate is not None and gate.used_by_others

    async def close(self) -> None:
        """Give up all slots."""
        await asyncio.gather(self._callers.close(), *(gate.close() for gate in self._gates.values()))

    def _gates_of(self, caller: Caller, url: str) -> Gates:
        own, to_dify = self._callers.of(caller), self._ways.get(url, ())
        return to_dify if own is None else (own, *to_dify)

    async def _probe(self, url: str) -> int:
        """Send small requests to Dify, each on a connection of its own; return how many are answered in time."""
        return sum(await asyncio.gather(*(self._is_answered(url) for _ in range(PROBES))))

    async def _is_answered(self, url: str) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._dify.welcome(url)
        except (ProxyError, TimeoutError):
            return False
        return True


def _line(caller: Caller, end_user: str | None, wait: TurnWait) -> Line:
    return Line(caller.id, end_user, wait.in_background, caller.limits.priority)
