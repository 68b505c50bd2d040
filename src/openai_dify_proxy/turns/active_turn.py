"""A running turn, as API handlers use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import Event, TurnFinished, TurnIds
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.telemetry import RequestRecord
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.booking import Booking
from openai_dify_proxy.turns.claims import ConversationClaim
from openai_dify_proxy.turns.conversation_entries import PausedRun
from openai_dify_proxy.turns.dify_stream import DifyStream
from openai_dify_proxy.turns.pauses import paused_run
from openai_dify_proxy.turns.stopping import Stopper
from openai_dify_proxy.wire.dify import Mode

PutPause = Callable[[PausedRun, bytes], Awaitable[Sequence[Operation]]]
"""Returns the operations that store a paused run after the history with this fingerprint."""

STOP_SECONDS = 1.0
"""How long a turn that ends with tool calls waits for the end of its run in Dify."""


class ActiveTurn(Entity):
    """A turn that Dify is answering, inside the block of ``Turns.run``.

    Iterate it for lists of events, or read ``stream`` with its other methods. Then ``commit`` the reply as sent to the
    client. A turn that is not committed is abandoned: no request continues it, and it is stopped in Dify if it still
    runs.
    """

    stream: DifyStream
    claim: ConversationClaim
    slot: Slot
    app_name: str
    mode: Mode
    user: str
    """Dify's user."""
    record: RequestRecord
    """The record of the request."""
    booking: Booking
    _now: Callable[[], float]
    """A clock in seconds since the epoch."""
    _put_pause: PutPause
    _stopper: Stopper

    @property
    def ids(self) -> TurnIds:
        return self.stream.ids

    @property
    def ended(self) -> bool:
        """Whether the last event was returned."""
        return self.stream.ended

    @property
    def cut_short(self) -> bool:
        """Whether a stop sequence ended the reply before Dify did."""
        return self.stream.cut_short

    def fill_record(self) -> None:
        """Add the result of the turn to the record of its request."""
        record, stream = self.record, self.stream
        last = stream.last
        if isinstance(last, TurnFinished):
            record.finish_reason = last.reason
        elif last is not None:
            record.fail(last.error)
        record.usage = stream.usage
        record.first_text, record.last_text = stream.first_text_at, stream.ended_at
        ids = stream.ids
        record.message_id, record.conversation_id = ids.message_id, ids.conversation_id

    def disconnect(self) -> None:
        """Record that the client disconnected: ``next`` raises ClientDisconnected from now on."""
        self.stream.disconnect()

    def next(self, wake_at: float | None = None) -> Coroutine[Any, Any, list[Event]]:
        """Return the next events; none if ``wake_at`` (in the loop's time) passed first. Raises ClientDisconnected.

        The last list ends with ``TurnFinished`` or ``TurnFailed``.
        """
        return self.stream.next(wake_at)

    def __aiter__(self) -> ActiveTurn:
        return self

    async def __anext__(self) -> list[Event]:
        if self.stream.ended:
            raise StopAsyncIteration
        return await self.stream.next()

    async def commit(self, reply: HistoryMessage, also: Sequence[Operation] = ()) -> None:
        """Store that the history ending with ``reply`` continues in this conversation, and run ``also`` with it.

        Also book what the turn used; one that Dify still runs is booked when it is stopped. Call it before the client
        receives its last frame, so that its next request finds both.
        """
        stream = self.stream
        form = stream.last.human_input if isinstance(stream.last, TurnFinished) else None
        paused = None if form is None else paused_run(form, stream.ids, stream.run_usage)
        if paused is not None:
            self.claim.pauses = paused.name
            also = [*also, *await self._put_pause(paused, self.claim.link_after(reply))]
        finished = stream.finished_upstream
        can_continue = not stream.cut_short if finished else await self._can_continue()
        booking = self.booking.end(stream) if finished or stream.finished_upstream else None
        await self.claim.commit(
            reply,
            conversation_id=stream.ids.conversation_id if can_continue else None,
            at=self._now() - stream.seconds_since_first_event,
            remembers=stream.remembers,
            also=also,
        )
        if booking is not None:
            await booking

    async def _can_continue(self) -> bool:
        """Return whether another turn may follow in Dify's conversation, whose run has not finished.

        A reply that was cut short is longer there. A run that was cut after its tool calls, or that did not correct
        them, must have ended first.
        """
        if self.stream.cut_short:
            return False
        stopping = self._stopper.abandon(self.stream, self.mode)
        if stopping is None:
            return True
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
        return self.stream.finished_upstream or self.stream.stopped
