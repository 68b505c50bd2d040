"""One turn: Dify's stream read with an eye on the clock and on the client.

``Turn.next`` is the only place that waits. Three things can end the waiting: upstream bytes, a deadline, the client's
leaving; all of them wake the same exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from openai_dify_proxy.errors import ConversationNotFound, ProxyError, StreamCut, UpstreamFailed, UpstreamTimeout
from openai_dify_proxy.events import Event, TurnFailed, TurnIds
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from openai_dify_proxy.upstream.dify import DifyApp, refusal
from openai_dify_proxy.upstream.http import Exchange

DEAD_SECONDS = 45.0
"""Dify pings every 10 s once a run goes on, so this long without a frame means a dead stream."""

SIBLING_SECONDS = 1.0
"""How long the second of ``message_end`` and ``workflow_finished`` is waited for."""

LINGER_SECONDS = 1.0
"""How long a finished stream may take to end, so that its connection can be used again."""

REFUSAL_BYTES = 1024 * 1024
REFUSAL_SECONDS = 5.0
"""How much of a refusal is read, and how long it may take."""


class TurnLimits(Struct, frozen=True):
    """Seconds: without any frame before the first event and after it (``dead``), and for the whole turn."""

    silence: float
    turn: float
    dead: float = DEAD_SECONDS


class ClientGone(Exception):
    """The client closed its connection."""


BeginAnew = Callable[["Turn"], Awaitable[tuple[Exchange, DifyEventDecoder]]]


class Turn:
    """A turn that Dify was asked for. Read it with ``next`` until the last event came or ``gone`` is true.

    ``conversation_id`` is the conversation that it goes on with. If Dify turns out to have lost it, the turn is begun
    once more by ``begin_anew``, which gets what there was of this one and raises ProxyError; without it the turn fails.
    """

    def __init__(
        self,
        exchange: Exchange,
        decoder: DifyEventDecoder,
        *,
        app: DifyApp,
        user: str,
        stop: StopSequences | None,
        limits: TurnLimits,
        conversation_id: str | None = None,
        begin_anew: BeginAnew | None = None,
    ) -> None:
        self.app = app
        self.user = user
        self.exchange = exchange
        self.gone = False
        self.ended = False
        self._decoder = decoder
        self._stop = stop
        self._limits = limits
        self._expected = conversation_id
        self._begin_anew = begin_anew
        self._first_event: float | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._last_frame = self._loop.time()
        self._frames = 0
        self._refusal = b""
        self._ending_since: float | None = None
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = 0.0

    @property
    def ids(self) -> TurnIds:
        return self._decoder.ids

    @property
    def finished_upstream(self) -> bool:
        """Whether Dify itself said that the run is over, or never began it."""
        return self._decoder.concluded or not self._is_stream()

    @property
    def cut_short(self) -> bool:
        """Whether the client was told less than Dify said, and may go on saying."""
        return self._stop is not None and self._stop.hit

    @property
    def remembers(self) -> bool | None:
        """Whether the model was shown the conversation; None where that cannot be told."""
        return self._decoder.remembers

    @property
    def seconds_since_first_event(self) -> float:
        """By then at the latest Dify had stored the question."""
        return 0.0 if self._first_event is None else self._loop.time() - self._first_event

    @property
    def patience(self) -> float:
        """Seconds that are left for a first event to come."""
        end = min(self._began + self._limits.turn, self._last_frame + self._limits.silence)
        return max(0.0, end - self._loop.time())

    def leave(self) -> None:
        """The client went away."""
        self.gone = True
        self.exchange.wake()

    async def next(self, wake_at: float | None = None) -> list[Event]:
        """The next events; none if ``wake_at`` (in the loop's time) passed first.

        The last list ends with ``TurnFinished`` or ``TurnFailed``. Raises ClientGone.
        """
        while True:
            if self.gone:
                raise ClientGone
            events = self._read() if self._is_stream() else self._read_refusal()
            if self._expected is not None and self._is_lost(events):
                events = await self._find_another(events)
            if events and (events := self._filtered(events)):
                return events
            now = self._loop.time()
            deadline = self._deadline()
            if now >= deadline:
                if events := self._filtered(self._expired(now)):
                    return events
                continue
            if wake_at is not None and now >= wake_at:
                return []
            self._wake_by(deadline if wake_at is None else min(deadline, wake_at))
            await self.exchange.wait()

    def close(self) -> None:
        """Nothing more is read. A stream about to end may do so, the connection of any other is closed."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._decoder.concluded and not self.exchange.ended:
            self.exchange.linger(LINGER_SECONDS)
        else:
            self.exchange.close()

    async def next_ids(self, timeout: float) -> str | None:
        """Waits for the ``task_id`` of a turn that nobody listens to any more; None if it never comes."""
        await self._read_on(lambda: self.ids.task_id is not None, timeout)
        return self.ids.task_id

    async def drain(self, timeout: float) -> None:
        """Reads a stopped turn to its end, for a Dify that stores the answer only if somebody listens."""
        await self._read_on(lambda: False, timeout)

    async def _read_on(self, enough: Callable[[], bool], timeout: float) -> None:
        """Reads without anybody being told, until it is enough, the turn is over, or ``timeout`` seconds passed."""
        end = self._loop.time() + timeout
        self._decoder.feed(self.exchange.take())
        while not (enough() or self._decoder.ended or self.exchange.ended) and self._loop.time() < end:
            self._wake_by(end)
            await self.exchange.wait()
            self._decoder.feed(self.exchange.take())

    def _is_lost(self, events: list[Event]) -> bool:
        """Whether Dify knows nothing of the conversation, or has silently begun another."""
        if events and isinstance(events[-1], TurnFailed):
            return isinstance(events[-1].error, ConversationNotFound)
        known = self.ids.conversation_id
        if known == self._expected:
            self._expected = None
        return known is not None and self._expected is not None

    async def _find_another(self, events: list[Event]) -> list[Event]:
        self._expected = None
        if self._begin_anew is None:
            return events if events and isinstance(events[-1], TurnFailed) else [TurnFailed(_begun_elsewhere())]
        lost = Turn(self.exchange, self._decoder, app=self.app, user=self.user, stop=None, limits=self._limits)
        try:
            self.exchange, self._decoder = await self._begin_anew(lost)
        except ProxyError as error:
            return [TurnFailed(error)]
        self._last_frame = self._loop.time()
        self._frames = 0
        self._refusal = b""
        self._first_event = self._ending_since = None
        self.exchange.wake()  # its client may have left meanwhile
        return []

    def _is_stream(self) -> bool:
        """Whether what comes is an event stream, or may still be one."""
        exchange = self.exchange
        return exchange.status is None or (
            exchange.status == 200 and exchange.headers.get("content-type", "").lower().startswith("text/event-stream")
        )

    def _read(self) -> list[Event]:
        exchange = self.exchange
        ended = exchange.ended
        data = exchange.take()
        events = self._decoder.feed(data) if data else []
        if self._decoder.frames != self._frames:
            self._frames = self._decoder.frames
            self._last_frame = self._loop.time()
            if self._first_event is None and self._decoder.said_something:
                self._first_event = self._last_frame
        return events + self._decoder.finish() if ended else events

    def _read_refusal(self) -> list[Event]:
        """Dify's refusal, once all of it is there."""
        self._refusal += self.exchange.take()
        if not self.exchange.ended and len(self._refusal) < REFUSAL_BYTES:
            return []
        return [TurnFailed(self._refused())]

    def _refused(self) -> ProxyError:
        exchange = self.exchange
        if exchange.status == 200:
            kind = exchange.headers.get("content-type", "no content type")
            return UpstreamFailed(f"Dify answered with {kind} instead of a stream.", started=True)
        return refusal(self.app, exchange, self._refusal)

    def _filtered(self, events: list[Event]) -> list[Event]:
        """``events`` as the client may see them; none if all of it may begin a stop sequence."""
        if self._stop is not None:
            events = self._stop.filter(events)
            if self._stop.hit:
                self.ended = True
        if self._decoder.ended or (events and isinstance(events[-1], TurnFailed)):
            self.ended = True
        return events

    def _deadline(self) -> float:
        end = self._began + self._limits.turn
        if self._decoder.ending or not self._is_stream():
            if self._ending_since is None:
                self._ending_since = self._loop.time()
            patience = SIBLING_SECONDS if self._decoder.ending else REFUSAL_SECONDS
            return min(end, self._ending_since + patience)
        if self.ids.task_id is None and not self._decoder.said_something:
            return min(end, self._last_frame + self._limits.silence)
        return min(end, self._last_frame + self._limits.dead)

    def _expired(self, now: float) -> list[Event]:
        if self._decoder.ending:
            return self._decoder.finish()
        if not self._is_stream():
            return [TurnFailed(self._refused())]
        if now >= self._began + self._limits.turn:
            message = "The turn took longer than this server allows and was stopped."
            return [TurnFailed(UpstreamTimeout(message, code="turn_timeout", started=True))]
        if self.ids.task_id is None and not self._decoder.said_something:
            message = "Dify sent no event for too long: it may be overloaded, or the conversation may be gone."
            return [TurnFailed(UpstreamTimeout(message, started=True))]
        return [TurnFailed(StreamCut("Dify's stream went silent in the middle of the answer.", started=True))]

    def _wake_by(self, when: float) -> None:
        """One timer for a turn: it is moved only when it must ring earlier, and rings in vain when that is over."""
        alarm = self._alarm
        if alarm is None or self._alarm_at > when:
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._loop.call_at(when, self._ring)
            self._alarm_at = when

    def _ring(self) -> None:
        """uvloop counts in milliseconds, so this may be a little too early; the timer is then set once more."""
        self._alarm = None
        self.exchange.wake()


def _begun_elsewhere() -> ConversationNotFound:
    return ConversationNotFound(
        "Dify no longer has this conversation, and began another. Send the request again without its id.",
        param="conversation_id",
        started=True,
    )
