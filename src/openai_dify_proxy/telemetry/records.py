"""One record per request, from which its log line, the metrics, the traces and the usage are made.

The front door creates the record of a request, and everything on the way of the request fills in what it knows. The
record is part of the response's ``Responder``, which is also the ``Client`` of its turn, so no look-up is needed. A
background response and a turn without a client have records of their own.

Times are those of ``time.perf_counter``, in seconds; 0 stands for a moment that did not come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter, time
from typing import Literal, Protocol, TypeVar

import structlog
from msgspec import Struct, field

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import FinishReason, Usage

log = structlog.get_logger(__name__)

Kind = Literal["request", "rejection", "response", "turn"]
"""``request``: a request that reached its handler. ``rejection``: one that the front door rejected.
``response``: a response in the background. ``turn``: a turn that another request caused, such as an enhanced prompt."""

Departure = Literal["", "client_gone", "client_stalled", "cancelled"]
"""How a client left before its answer was complete."""

_T = TypeVar("_T")


class Trace(Protocol):
    """The spans of one request."""

    def begin_turn(self, url: str) -> bytes:
        """Begin the span of the turn, unless it has begun. Return the headers with its context for the Dify at ``url``.

        They are lines that end with CR LF.
        """


class RequestRecord(Struct, eq=False, kw_only=True):
    """What is known of one request. It holds no text of a chat and no key."""

    kind: Kind = "request"
    id: str = ""
    """The id in ``x-request-id``, or that of the response in the background."""
    method: str = ""
    path: str = ""
    """The path as the client sent it."""
    route: str = ""
    """The template of the route, such as ``/v1/responses/{response_id}``; empty if no route serves the request."""
    client: str | None = None
    """The client's address."""
    caller: str = ""
    """The id of the authenticated caller."""
    label: str | None = None
    """The name of the caller's key, if it has one."""
    end_user: str | None = None
    model: str | None = None
    """The model that the request names."""
    app: str = ""
    """The app that answers: the name of a configured app, or ``dify`` for a Dify key in the request."""
    streamed: bool = False
    status: int = 0
    """The status of the response; 0 before it has started."""
    departure: Departure = ""
    finish_reason: FinishReason | None = None
    error: ProxyError | None = None
    usage: Usage | None = None
    """Dify's own counts; None if Dify sent none."""
    task_id: str | None = None
    """Dify's id of the run of a client that left."""
    message_id: str | None = None
    conversation_id: str | None = None
    prediction_ids: list[str] = field(default_factory=list)
    pictures: int = 0
    files: int = 0
    """Files of the request that were sent to Dify."""
    trace: Trace | None = None
    """The spans of the request; None while tracing is off."""
    cause: Trace | None = None
    """The spans of the request that started this response in the background."""

    began_at: float = 0.0
    """Seconds since the epoch."""
    started: float = 0.0
    """The head of the request was complete; that of a rejected request began."""
    received: float = 0.0
    """The body of the request was complete."""
    sent: float = 0.0
    """The request to Dify was sent."""
    first_text: float = 0.0
    """The bytes with the first event that a client can see were read from Dify."""
    last_text: float = 0.0
    """Dify's last event was read."""
    first_byte: float = 0.0
    """The first byte of the response was written."""
    ended: float = 0.0
    queued: float = 0.0
    """Seconds that the turn waited for its slot, or for its conversation."""
    elsewhere: float = 0.0
    """Seconds until ``sent`` that were spent waiting: in queues, for Dify's other answers, and to connect."""

    def begin(self, received: float) -> None:
        """Record that the request starts; its body has arrived at ``received``, or is still to come if that is 0."""
        self.started = perf_counter()
        self.began_at = time()
        self.received = received

    @property
    def seconds(self) -> float:
        """The duration of the request so far, or altogether once it has ended."""
        return (self.ended or perf_counter()) - self.started

    @property
    def first_text_seconds(self) -> float | None:
        """Seconds from the request to the first visible event."""
        return self.first_text - self.started if self.first_text else None

    @property
    def overhead(self) -> float | None:
        """The seconds that the proxy itself added: None for a request without an answer of Dify.

        From the complete request to the request to Dify, without waiting for others; and from the read of the event
        that made the response start to its first byte. That event is the last one if the answer is not streamed.
        """
        if not self.sent or not self.first_text or not self.first_byte:
            return None
        caused_by = self.first_text if self.streamed else self.last_text
        before = self.sent - max(self.received, self.started) - self.elsewhere
        return max(0.0, before) + max(0.0, self.first_byte - caused_by)

    @property
    def outcome(self) -> str:
        """The outcome in one word, for metrics: one of ``OUTCOMES``."""
        if self.error is None:
            if self.finish_reason is not None and self.departure != "cancelled":
                return self.finish_reason
            return self.departure or ("ok" if self.status < 400 else "failed")
        if (self.app or self.prediction_ids) and not self.error.before_turn:
            return "turn_failed"
        return "rejected" if self.error.status < 500 else "failed"

    def fail(self, error: ProxyError) -> None:
        """Record the error that ended the request; the first one counts."""
        if self.error is None:
            self.error = error

    async def wait(self, work: Awaitable[_T]) -> _T:
        """Return the result of ``work``, and count its duration as spent elsewhere."""
        began = perf_counter()
        try:
            return await work
        finally:
            self.elsewhere += perf_counter() - began


OUTCOMES = (
    "stop",
    "length",
    "content_filter",
    "tool_calls",
    "ok",
    "client_gone",
    "client_stalled",
    "cancelled",
    "turn_failed",
    "rejected",
    "failed",
)

Sink = Callable[[RequestRecord], None]


BATCH = 64
"""Records that are counted at once."""


class RequestRecords:
    """Closes records, and passes each closed record on to all sinks, in their order, and later to all counters.

    Counters get records in batches, since the same code takes less time when it runs many times in a row.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = [*sinks]
        self._counters: list[Sink] = []
        self._uncounted: list[RequestRecord] = []
        self.open: set[RequestRecord] = set()
        """The requests that are being answered."""
        self.on_begin: Callable[[RequestRecord, Iterable[tuple[bytes, bytes]]], None] | None = None
        """Called with each record that begins, and the headers of its request."""

    @property
    def open_streams(self) -> int:
        """The number of streams that are being sent."""
        return sum(record.streamed for record in self.open)

    def add_sink(self, sink: Sink) -> None:
        """Call ``sink`` with each record that is closed from now on. It must be quick, and not wait."""
        self._sinks.append(sink)

    def add_counter(self, counter: Sink) -> None:
        """Call ``counter`` with each record that is closed from now on, at the latest in the next ``count``.

        Whoever reads what the counter has counted calls ``count`` first.
        """
        self._counters.append(counter)

    def begin(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Record that the request with these headers begins."""
        if record.kind == "request":
            self.open.add(record)
        if self.on_begin is not None:
            self.on_begin(record, headers)

    def close(self, record: RequestRecord) -> None:
        """Record that the request has ended. Does nothing for a record that is closed already."""
        if record.ended:
            return
        record.ended = perf_counter()
        self.open.discard(record)
        for sink in self._sinks:
            try:
                sink(record)
            except Exception:  # a bug of one sink, which must not reach the client or other sinks
                log.exception("record_lost")
        if (error := record.error) is not None:  # sinks keep records, and tracebacks lead to the texts of requests
            error.__traceback__ = error.__context__ = error.__cause__ = None
        self._uncounted.append(record)
        if len(self._uncounted) >= BATCH:
            self.count()

    def count(self) -> None:
        """Pass all closed records on to the counters."""
        records, self._uncounted = self._uncounted, []
        for counter in self._counters:
            for record in records:
                try:
                    counter(record)
                except Exception:  # as above
                    log.exception("record_lost")
