"""Reads Dify's answer to one turn, with deadlines.

``DifyStream.poll`` reads without waiting. Upstream bytes, a deadline, and the client's disconnect all wake the same
exchange, which calls the stream's listener, or wakes the coroutine in ``next``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Protocol

from msgspec import Struct, field

from openai_dify_proxy.alarms import Alarm, alarms_of
from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import ConversationNotFound, ProxyError, UpstreamFailed
from openai_dify_proxy.events import Event, TextDelta, TurnFailed, TurnFinished, TurnIds, Usage
from openai_dify_proxy.tools.output_reader import OutputReader
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.file_links import FileLinks
from openai_dify_proxy.translate.dify.usage import sum_usage
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from openai_dify_proxy.turns.client import ClientDisconnected
from openai_dify_proxy.turns.resumption import ATTACH_SECONDS, Resumption
from openai_dify_proxy.turns.reuploads import Reuploads
from openai_dify_proxy.turns.stream_errors import conversation_lost, dead_stream, no_first_event, turn_timeout
from openai_dify_proxy.upstream.dify import DifyApp, missing_answer, rejection
from openai_dify_proxy.upstream.exchange import Exchange

DEAD_SECONDS = 45.0
"""Dify pings every 10 s during a run, so this long without a frame means a dead stream."""

SIBLING_SECONDS = 1.0
"""How long to wait for the second of ``message_end`` and ``workflow_finished``."""

LINGER_SECONDS = 1.0
"""How long a finished stream may take to end, so that its connection can be reused."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""How much of an abandoned turn is read: Dify stops writing soon after a stop, a hostile one never does."""

ERROR_BODY_BYTES = 1024 * 1024
ERROR_BODY_SECONDS = 5.0
"""How much of an error body is read, and for how long."""


class TurnLimits(Struct, frozen=True):
    """Time limits in seconds: without a frame before the first event (``silence``) and after it (``dead``), for the
    whole turn, and for the first event of a stream that resumes another (``attach``)."""

    silence: float
    turn: float
    dead: float = DEAD_SECONDS
    attach: float = ATTACH_SECONDS


Run = tuple[Exchange, DifyEventDecoder]
Restart = Callable[["DifyStream"], Awaitable[Run]]


class Repair(Protocol):
    """Starts the run that answers the question ``text``, after the run of a stream."""

    def __call__(self, before: DifyStream, text: str) -> Awaitable[Run]: ...


class DifyStream(Entity):
    """The event stream of one turn, until ``ended`` is true.

    Read it either with ``next``, which waits, or with ``poll`` whenever the function given to ``listen`` is called.

    ``conversation_id`` is the conversation that the turn continues. If Dify has lost it, ``restart`` sends the request
    again in a new conversation: it receives the lost stream, and may raise ProxyError. Without ``restart`` the turn
    fails. ``reuploads`` sends the request again if Dify has lost a file. ``output`` reads the client's tool calls;
    ``repair`` receives the ended stream and the question of the run that corrects them. ``resumption`` reads on after
    the stream broke off. ``links`` replaces links to files. While ``between_runs`` is true, ``begin_next_run`` has to
    be awaited.

    ``last`` is the last event, once ``ended`` is true. ``first_text_at`` is when the bytes of the first visible event
    were read, and ``ended_at`` when the last event was, by ``perf_counter``; 0 until then.
    """

    exchange: Exchange
    _decoder: DifyEventDecoder
    app: DifyApp
    user: str
    limits: TurnLimits
    stop: StopSequences | None = None
    conversation_id: str | None = None
    restart: Restart | None = None
    reuploads: Reuploads | None = None
    output: OutputReader | None = None
    repair: Repair | None = None
    resumption: Resumption | None = None
    links: FileLinks | None = None
    client_disconnected: bool = False
    ended: bool = False
    stopped: bool = False
    """Whether Dify has confirmed a stop call."""
    last: TurnFinished | TurnFailed | None = None
    first_text_at: float = 0.0
    ended_at: float = 0.0
    _read_at: float = 0.0
    _next_run: Restart | None = None
    _undelivered: list[Event] = field(default_factory=list)
    _ran: bool = False
    _usage_read: bool = False
    _streams: bool | None = None
    _began: float = 0.0
    _first_event: float | None = None
    _last_frame: float = 0.0
    _attached_at: float = 0.0
    _paused_at: float = 0.0
    _ending_since: float | None = None
    _frames: int = 0
    _error_body: bytes = b""
    _timer: Alarm | None = None
    _timer_at: float = 0.0

    def __post_init__(self) -> None:
        self._began = self._last_frame = self.exchange.loop.time()

    @property
    def ids(self) -> TurnIds:
        return self._decoder.ids

    @property
    def finished_upstream(self) -> bool:
        """Whether Dify reported the end of the run, or never started it."""
        return self._decoder.concluded or not self._is_stream()

    @property
    def ran(self) -> bool:
        """Whether Dify has started a run."""
        return self._ran or self.ids.task_id is not None

    @property
    def usage(self) -> Usage | None:
        """Dify's own token counts of all runs so far, also those of a turn that failed or was stopped."""
        if isinstance(self.last, TurnFinished) and self.last.usage is not None:
            return self.last.usage
        earlier = None if self.output is None else self.output.usage
        return sum_usage(earlier, None if self._usage_read else self._decoder.usage)

    @property
    def run_usage(self) -> Usage | None:
        """Dify's own token counts of the current run, with those before its pauses."""
        return self._decoder.run_usage

    @property
    def cut_short(self) -> bool:
        """Whether a stop sequence ended the reply, so that Dify's conversation holds a longer one."""
        return self.stop is not None and self.stop.hit

    @property
    def between_runs(self) -> bool:
        """Whether the request has to be sent again, or corrected by another run, before events follow."""
        return self._next_run is not None

    @property
    def remembers(self) -> bool | None:
        """Whether the model was shown the conversation; None if unknown."""
        return self._decoder.remembers

    @property
    def seconds_since_first_event(self) -> float:
        """Seconds since the first event; Dify had stored the question by then."""
        return 0.0 if self._first_event is None else self.exchange.loop.time() - self._first_event

    @property
    def first_event_timeout(self) -> float:
        """Seconds that are left for the first event to arrive."""
        end = min(self._began + self.limits.turn, self._last_frame + self.limits.silence)
        return max(0.0, end - self.exchange.loop.time())

    def disconnect(self) -> None:
        """Record that the client disconnected, and wake the reader."""
        self.client_disconnected = True
        self.exchange.wake()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call ``listener`` whenever ``poll`` may return more; None for no listener."""
        self.exchange.listener = listener

    def await_events(self) -> None:
        """Let the listener be called when the first bytes arrive, or by their deadline; at once if they have by now."""
        if self.client_disconnected or self.exchange.has_news:
            self.exchange.wake()
        else:
            self._wake_by(self._began + min(self.limits.silence, self.limits.turn))

    def pause(self) -> None:
        """Stop reading from Dify until ``resume``."""
        self._paused_at = self.exchange.loop.time()
        self.exchange.pause()

    def resume(self) -> None:
        """Read from Dify again. The time of the pause does not count as Dify's silence."""
        paused = self.exchange.loop.time() - self._paused_at
        self._last_frame += paused
        if self._ending_since is not None:
            self._ending_since += paused
        self.exchange.resume()

    async def next(self, wake_at: float | None = None) -> list[Event]:
        """Return the next events; none if ``wake_at`` (in the loop's time) passed first.

        The last list ends with ``TurnFinished`` or ``TurnFailed``. Raises ClientDisconnected.
        """
        while True:
            events = await self.begin_next_run() if self.between_runs else self.poll()
            if events:
                return events
            if self.between_runs:
                continue
            if wake_at is not None:
                if self.exchange.loop.time() >= wake_at:
                    return []
                self._wake_by(wake_at)
            await self.exchange.wait()

    def poll(self) -> list[Event]:
        """Return the events that have arrived, or that a deadline causes; often none. Raises ClientDisconnected.

        Sets the timer that wakes the reader at the next deadline.
        """
        if self.client_disconnected:
            raise ClientDisconnected
        if self._next_run is not None:
            return []
        events = self._read() if self._streams or self._is_stream() else self._read_error_body()
        if self.conversation_id is not None and self._is_lost(events):
            events = self._without_conversation(events)
        if events and (events := self._filtered(events)):
            if not (self.first_text_at or isinstance(events[0], TurnFinished | TurnFailed)):
                self.first_text_at = self._read_at
            if not self.ended and (self._timer is None or self._decoder.ending):
                self._wake_by(self._deadline())
            return events
        if self.between_runs:
            return []
        now = self.exchange.loop.time()
        deadline = self._deadline()
        if now >= deadline and (events := self._filtered(self._expired(now))):
            return events
        self._wake_by(deadline)
        return []

    async def begin_next_run(self) -> list[Event]:
        """Start the next run of the turn. Return the last events of the run before it, and the failure if it fails."""
        begin, self._next_run = self._next_run, None
        assert begin is not None
        events, self._undelivered = self._undelivered, []
        listener = self.exchange.listener
        before = DifyStream(self.exchange, self._decoder, self.app, self.user, self.limits)
        before.listen(None)
        before._first_event = self._first_event
        self._ran = self.ran
        try:
            self.exchange, self._decoder = await begin(before)
        except ProxyError as error:
            return [*events, *self._filtered([TurnFailed(error)])]
        self._streams = None
        self._usage_read = False
        self._attached_at = self._last_frame = self.exchange.loop.time()
        self._frames = 0
        self._error_body = b""
        self._first_event = self._ending_since = None
        self.exchange.listener = listener
        self.exchange.wake()  # the client may have disconnected meanwhile
        return events

    def close(self) -> None:
        """Stop reading. A concluded stream may still end, so that its connection is reused; any other is aborted."""
        if self._timer is not None:
            alarms_of(self.exchange.loop).cancel(self._timer)
            self._timer = None
        self.exchange.listener = None
        if self._decoder.concluded and not self.exchange.ended:
            self.exchange.linger(LINGER_SECONDS)
        else:
            self.exchange.close()

    async def wait_for_task_id(self, timeout: float) -> str | None:
        """Wait for the ``task_id`` of an abandoned turn; return None after ``timeout`` seconds or at the end."""
        await self._read_on(lambda: self.ids.task_id is not None, timeout)
        return self.ids.task_id

    async def drain(self, timeout: float) -> None:
        """Read and discard a stopped turn: old versions of Dify store an empty answer if the stream is dropped."""
        await self._read_on(lambda: False, timeout)

    async def _read_on(self, enough: Callable[[], bool], timeout: float) -> None:
        """Read and discard until ``enough()``, the end of the turn, ``timeout`` seconds, or MAX_DISCARDED_BYTES."""
        end = self.exchange.loop.time() + timeout
        self.exchange.listener = None
        self.exchange.resume()
        data = self.exchange.take()
        discarded = len(data)
        self._decoder.feed(data)
        while not (enough() or self._decoder.ended or self.exchange.ended) and self.exchange.loop.time() < end:
            if discarded > MAX_DISCARDED_BYTES:
                return
            self._wake_by(end)
            await self.exchange.wait()
            data = self.exchange.take()
            discarded += len(data)
            self._decoder.feed(data)

    def _is_lost(self, events: list[Event]) -> bool:
        """Return whether Dify does not know the conversation, or has silently started another."""
        if events and isinstance(events[-1], TurnFailed):
            return isinstance(events[-1].error, ConversationNotFound)
        known = self.ids.conversation_id
        if known == self.conversation_id:
            self.conversation_id = None
        return known is not None and self.conversation_id is not None

    def _without_conversation(self, events: list[Event]) -> list[Event]:
        """Prepare the next run if there is one for a lost conversation, else return the failure."""
        self.conversation_id = None
        if self.restart is not None:
            self._next_run = self.restart
            return []
        return events if events and isinstance(events[-1], TurnFailed) else [TurnFailed(conversation_lost())]

    def _is_stream(self) -> bool:
        """Return whether the answer is an event stream, or may still become one."""
        if self._streams is None:
            exchange = self.exchange
            if exchange.status is None:
                return True
            kind = exchange.headers.get("content-type", "").lower()
            self._streams = exchange.status == 200 and kind.startswith("text/event-stream")
        return self._streams

    def _read(self) -> list[Event]:
        exchange = self.exchange
        ended = exchange.ended
        if not self.first_text_at:
            self._read_at = perf_counter()
        data = exchange.take()
        events = self._decoder.feed(data) if data else []
        if (frames := self._decoder.frames) != self._frames:
            self._frames = frames
            self._last_frame = self.exchange.loop.time()
            if self._first_event is None and self._decoder.started:
                self._first_event = self._last_frame
                if not self._decoder.ended:
                    self._wake_by(self._last_frame + self.limits.dead)  # the timer is that of the first event
        if not ended:
            return events
        events += self._decoder.finish()
        return events if exchange.status is not None else [TurnFailed(missing_answer(self.app, exchange))]

    def _read_error_body(self) -> list[Event]:
        """Return the failure once Dify's error body is complete."""
        self._error_body += self.exchange.take()
        if not self.exchange.ended and len(self._error_body) < ERROR_BODY_BYTES:
            return []
        return [TurnFailed(self._error())]

    def _error(self) -> ProxyError:
        cut = None if self.resumption is None else self.resumption.refuse(self._decoder)
        if cut is not None:  # Dify does not know the route or the run
            return cut
        exchange = self.exchange
        if exchange.status == 200:
            kind = exchange.headers.get("content-type", "no content type")
            return UpstreamFailed(f"Dify answered with {kind} instead of a stream.", started=True)
        return rejection(self.app, exchange, self._error_body)

    def _filtered(self, events: list[Event]) -> list[Event]:
        """Return ``events`` for the client, without text that may begin a link or a stop sequence; possibly none."""
        links = self.links
        if self.stop is None and self.output is None and events and type(events[-1]) is TextDelta:
            return events if links is None else links.filter(events)  # the usual case
        resumption = self.resumption
        if resumption is not None and resumption.begin(events, self._decoder):
            return self._before_resumption(self._filtered(events[:-1]), resumption)
        if self.reuploads is not None and not self.first_text_at:
            self._next_run = self.reuploads.next_run(events)
            if self._next_run is not None:
                return []
        if links is not None:
            events = links.filter(events)
        question = None
        if self.output is not None:
            self._usage_read = bool(events) and isinstance(events[-1], TurnFinished)
            events = self.output.filter(events)
            question = self.output.repair
        if self.stop is not None:
            events = self.stop.filter(events)
        last = events[-1] if events else None
        if isinstance(last, TurnFinished | TurnFailed):
            self.ended = True
            self.last = last
            self.ended_at = perf_counter()
        elif question is not None:
            assert self.repair is not None
            self._next_run = partial(self.repair, text=question)
            self._undelivered = events
            return []
        return events

    def _before_resumption(self, events: list[Event], resumption: Resumption) -> list[Event]:
        """Prepare ``begin_next_run`` to read on in another stream, unless ``events`` end or repair the turn."""
        if self.ended or self.between_runs:
            return events
        self._undelivered = events
        self._next_run = lambda before: resumption.attach(before, self._decoder)
        return []

    def _deadline(self) -> float:
        end = self._began + self.limits.turn
        if self._decoder.ending or not self._is_stream():
            if self._ending_since is None:
                self._ending_since = self.exchange.loop.time()
            timeout = SIBLING_SECONDS if self._decoder.ending else ERROR_BODY_SECONDS
            return min(end, self._ending_since + timeout)
        if self._is_attaching():
            return min(end, self._attached_at + self.limits.attach)
        if self.ids.task_id is None and not self._decoder.started:
            return min(end, self._last_frame + self.limits.silence)
        return min(end, self._last_frame + self.limits.dead)

    def _expired(self, now: float) -> list[Event]:
        if self._decoder.ending:
            return self._decoder.finish()
        if not self._is_stream():
            return [TurnFailed(self._error())]
        if now >= self._began + self.limits.turn:
            return [TurnFailed(turn_timeout(self.limits.turn))]
        if self.ids.task_id is None and not self._decoder.started:
            return [TurnFailed(no_first_event())]
        return [TurnFailed(dead_stream(self.limits.attach if self._is_attaching() else self.limits.dead))]

    def _is_attaching(self) -> bool:
        """Return whether the stream resumes another one, and has not begun yet."""
        return self.resumption is not None and self.resumption.attaching(self._decoder)

    def _wake_by(self, when: float) -> None:
        """Set the stream's only timer. It is only moved to fire earlier; a timer that fires too early has no effect."""
        timer = self._timer
        if timer is None or self._timer_at > when:
            if timer is not None:
                alarms_of(self.exchange.loop).cancel(timer)
            self._timer = alarms_of(self.exchange.loop).set(when, self._fire)
            self._timer_at = when

    def _fire(self) -> None:
        """Wake the reader."""
        self._timer = None
        self.exchange.wake()
