"""The slots of one Dify in this process: who has one, who waits, and how many there are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.turns.admission.auto_limit import LOWEST_LIMIT, PROBES, AutoLimit
from openai_dify_proxy.turns.admission.fair_queue import FairQueue, Line
from openai_dify_proxy.turns.admission.promises import Promises, TurnDurations
from openai_dify_proxy.turns.admission.rejections import DifyRejections, Rejections
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.upstream.control_calls import CONTROL_CONNECTIONS

TICK_SECONDS = 0.05
"""How often the limit is reconsidered while turns wait."""

OBSERVE_SECONDS = 1.0
"""How often it is reconsidered while none waits, at most: when a turn gets a slot."""

log = structlog.get_logger(__name__)


class GateStatus(Struct, frozen=True):
    """The limit of one Dify, and this process's turns: ``in_use`` have a slot, ``queued`` wait for one."""

    limit: int
    auto: bool
    in_use: int
    queued: int


_Reason = Callable[[], Exception]
"""Makes the exception of a turn that stops waiting. A future with the exception itself would be a reference cycle."""


class _Ticket:
    """A waiting turn. ``slot`` receives its slot, or the reason why it stops waiting."""

    __slots__ = ("line", "since", "slot")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.since = time.time()
        self.slot: asyncio.Future[Slot | _Reason] = asyncio.get_running_loop().create_future()


async def no_probe() -> int:
    """Probe nothing, for a gate with a fixed limit."""
    return 0


class Gate:
    """Gives the turns of one Dify, or of one caller, their slots.

    ``limit`` is fixed, or None for a limit that is found. ``probe`` sends small requests to Dify at the same time and
    returns how many were answered. ``share`` is this process's part of the slots; None if no other process shares them.
    ``rejections`` makes the errors of turns that get no slot.
    """

    def __init__(
        self,
        url: str,
        *,
        limit: int | None,
        max_queued: int,
        probe: Callable[[], Awaitable[int]] = no_probe,
        share: Share | None,
        rejections: Rejections | None = None,
    ) -> None:
        self._url = url
        self._fixed = limit
        self._auto = AutoLimit()
        self._max_queued = max_queued
        self._probe = probe
        self._share = share
        self._rejections = rejections or DifyRejections()
        self._slots: set[Slot] = set()
        self._queue: FairQueue[_Ticket] = FairQueue()
        self._promises = Promises(4 * max_queued)
        self._durations = TurnDurations()
        self._loop = asyncio.get_running_loop()
        self._observed_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None
        self._rejecting = False
        self._releases = 0
        if share is not None:
            share.connect(self)

    @property
    def limit(self) -> int:
        return self._auto.limit if self._fixed is None else self._fixed

    @property
    def finds_limit(self) -> bool:
        return self._fixed is None

    @property
    def in_use(self) -> int:
        return len(self._slots)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def waiting_since(self) -> float | None:
        return next(iter(self._queue)).since if self._queue else None

    @property
    def status(self) -> GateStatus:
        return GateStatus(self.limit, self.finds_limit, self.in_use, self.queued)

    @property
    def answers(self) -> bool:
        """Whether Dify is answering a turn of this process, so that it is at work even if it accepts nothing more."""
        return any(slot.is_answered for slot in self._slots)

    def try_enter(self) -> Slot | None:
        """Return a slot if one is free and no turn waits for it."""
        if self._queue or len(self._slots) >= self._allowed:
            return None
        if self._auto.limit > LOWEST_LIMIT:
            self._observe(OBSERVE_SECONDS)
        return self._take()

    def try_borrow(self) -> Slot | None:
        """Return a slot for one short call if one is free and no turn waits. Other processes do not see it."""
        if self._queue or len(self._slots) + self._of_others >= self.limit:
            return None
        return self._add_slot()

    def check_place(self, line: Line) -> None:
        """Raise the error of a full queue if a turn would get neither a slot nor a place in it."""
        waits = self._queue or len(self._slots) >= self._allowed
        if waits and not self._has_place(line) and not self._promises.is_due(line, self._loop.time()):
            raise self._full(line)

    async def wait(self, line: Line, client: Client, wait: TurnWait, *, again: bool = False) -> Slot:
        """Wait for a slot, as long as ``wait`` allows, and return it.

        A turn that enters ``again``, after it gave up its slot, is the next of its end user, also in a full queue.
        Raises the errors of ``rejections``, and ClientDisconnected as soon as the client disconnects.
        """
        ticket = self._enqueue(line, again=again)
        if len(self._slots) + self._of_others >= self.limit:
            wait.enter(lambda: self._queue.position(ticket))
            log.debug("turn_queued", position=wait.queued_at, queued=len(self._queue))
        began = self._loop.time()
        timed_out = partial(self._timed_out, line, wait.limit)
        timer = self._loop.call_later(wait.left, self._dismiss, ticket, timed_out)
        client.on_disconnect(lambda: self._dismiss(ticket, ClientDisconnected))
        self._continue()
        try:
            outcome = await ticket.slot
        except asyncio.CancelledError:
            self._queue.remove(ticket)
            if not ticket.slot.cancelled() and isinstance(slot := ticket.slot.result(), Slot):
                slot.leave()
            raise
        finally:
            timer.cancel()
            wait.leave(self._loop.time() - began)
        if isinstance(outcome, Slot):
            return outcome
        raise outcome()

    def change_limit(self, limit: int) -> None:
        """Use another fixed limit. Turns that have a slot keep it."""
        self._fixed = limit
        if self._share is not None:
            self._share.require()
        self.admit()

    def adopt(self, limit: int) -> None:
        """Use the limit that another process has found."""
        before = self.limit
        self._auto.adopt(limit)
        self._report_limit(before, "another process")

    def admit(self) -> None:
        """Give free slots to waiting turns."""
        while self._queue and len(self._slots) < self._allowed:
            ticket = self._queue.pop()
            if not ticket.slot.done():  # a cancelled turn is queued until its task runs
                ticket.slot.set_result(self._take())
        self._continue()

    async def close(self) -> None:
        """Stop looking for the limit, and give up all slots."""
        if self._tick is not None:
            self._tick.cancel()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        if self._share is not None:
            await self._share.close()

    @property
    def _allowed(self) -> int:
        return self.limit if self._share is None else self._share.allowed

    @property
    def _of_others(self) -> int:
        return 0 if self._share is None else self._share.of_others

    @property
    def used_by_others(self) -> bool:
        """Whether other processes had slots when the state was last reached."""
        return self._of_others > 0

    def _take(self) -> Slot:
        slot = self._add_slot()
        if self._share is not None:
            self._share.use()
        return slot

    def _add_slot(self) -> Slot:
        slot = Slot(self._release)
        self._slots.add(slot)
        return slot

    def _release(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._releases += 1
        if slot.exchange is not None:  # else it served no turn
            self._durations.add(self._loop.time() - slot.began)
        if self._share is not None:
            self._share.free()
        self.admit()

    def _enqueue(self, line: Line, *, again: bool) -> _Ticket:
        """Return the ticket of a turn that has entered the queue. Raises the error of a full queue."""
        first = again or self._promises.redeem(line, self._loop.time())
        if not first and not self._has_place(line):
            raise self._full(line)
        self._rejecting = self._rejecting and len(self._queue) >= self._max_queued
        ticket = _Ticket(line)
        self._queue.push(ticket, line, first=first)
        return ticket

    def _has_place(self, line: Line) -> bool:
        free = max(0, self.limit - len(self._slots) - self._of_others)  # these turns wait only for the state
        return self._queue.has_place(line.caller, self._max_queued + free)

    def _full(self, line: Line) -> ProxyError:
        if not self._rejecting:
            self._rejecting = True
            log.warning("queue_full", url=self._url, queued=len(self._queue), limit=self.limit)
        return self._rejections.full(len(self._queue), self._promise(line))

    def _promise(self, line: Line) -> int:
        seconds = self._durations.seconds_per_slot(self._allowed or self.limit)
        return self._promises.make(line, self._loop.time(), seconds)

    def _timed_out(self, line: Line, waited: float) -> ProxyError:
        return self._rejections.timed_out(waited, self._promise(line))

    def _dismiss(self, ticket: _Ticket, reason: _Reason) -> None:
        """Remove a turn from the queue, unless it has its slot already."""
        if not ticket.slot.done():
            self._queue.remove(ticket)
            ticket.slot.set_result(reason)

    # The limit

    def _continue(self) -> None:
        """Do what waiting turns need: acquire slots, and look for the limit."""
        if not self._queue:
            return
        if self._share is not None and self._allowed < self.limit:
            self._share.require()
        if self._fixed is None and self._tick is None:
            self._tick = self._loop.call_later(TICK_SECONDS, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        self._observe(0.0)
        self.admit()

    def _observe(self, seconds: float) -> None:
        """Reconsider the limit unless that happened less than ``seconds`` ago."""
        now = self._loop.time()
        if self._fixed is not None or now - self._observed_at < seconds:
            return
        self._observed_at = now
        before = self.limit
        sent_at = [slot.sent_at for slot in self._slots if slot.awaits_head]
        answering = sum(slot.is_answered for slot in self._slots) + self._of_others
        probe = self._auto.observe(now, sent_at, answering=answering, waiting=len(self._queue))
        if probe and self._probing is None and (self._share is None or self._share.settled):
            self._probing = self._loop.create_task(self._probe_limit())
        self._report_limit(before, "late answers")

    async def _probe_limit(self) -> None:
        before, releases = self.limit, self._releases
        try:
            answered = await self._probe()
        finally:
            self._probing = None
        if answered > CONTROL_CONNECTIONS and (self._releases != releases or self.limit != before):
            return  # the probes may have had the connection of a turn
        self._auto.probed(self._loop.time(), answered)
        self._report_limit(before, f"{answered} of {PROBES} probes answered")
        self.admit()

    def _report_limit(self, before: int, reason: str) -> None:
        if self.limit != before:
            log.info("limit_changed", url=self._url, limit=self.limit, previous=before, reason=reason)
            if self._share is not None:
                self._share.require()
