"""The spans and metrics of requests and turns. Loads the SDK of OpenTelemetry.

A request is a span of kind ``SERVER``, and its turn a child of kind ``CLIENT``, whose context Dify receives. A response
in the background is a trace of its own, with a link to the request that started it. All end when the record of the
request is closed, with the times in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NoOpTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from openai_dify_proxy.telemetry.otel import conventions as c
from openai_dify_proxy.telemetry.records import RequestRecord

_PROPAGATOR = TraceContextTextMapPropagator()
_CONTEXT_HEADERS = frozenset({b"traceparent", b"tracestate"})
_COMPLETIONS = "/v1/completions"
_NAME = "openai_dify_proxy"

Attributes = dict[str, AttributeValue]


class RequestTrace:
    """The spans of one request. ``span`` is that of the request, None for a turn without one."""

    def __init__(self, tracer: Tracer, record: RequestRecord, span: Span) -> None:
        self.span = span
        self.turn: Span | None = None
        self.server: Attributes = {}
        self._tracer = tracer
        self._record = record
        self._headers = b""

    def begin_turn(self, url: str) -> bytes:
        """Begin the span of the turn, unless it has begun. Return headers with its context for the Dify at ``url``."""
        if self.turn is None:
            self.server = _server(url)
            context = set_span_in_context(self.span)
            name = f"{_operation(self._record)} {self._record.app}"
            self.turn = self._tracer.start_span(name, context, SpanKind.CLIENT)
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier, set_span_in_context(self.turn))
            self._headers = "".join(f"{key}: {value}\r\n" for key, value in carrier.items()).encode("latin-1")
        return self._headers


class OtelSignals:
    """Traces and metrics. ``resource`` are the attributes of this service."""

    def __init__(self, resource: dict[str, str], *, traces: bool, metrics: bool) -> None:
        described = Resource.create(dict(resource))
        self._traces: TracerProvider | None = None
        self._meters: MeterProvider | None = None
        if traces:
            self._traces = TracerProvider(resource=described, shutdown_on_exit=False)
            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if metrics:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            self._meters = MeterProvider([reader], described, shutdown_on_exit=False)
        self._tracer = (self._traces or NoOpTracerProvider()).get_tracer(_NAME, schema_url=c.GEN_AI_SCHEMA)
        meter = (self._meters or NoOpMeterProvider()).get_meter(_NAME, schema_url=c.GEN_AI_SCHEMA)
        buckets = list(c.DURATION_BUCKETS)
        self._durations = meter.create_histogram(c.INFERENCE_DURATION, "s", explicit_bucket_boundaries_advisory=buckets)
        self._first_chunks = meter.create_histogram(
            c.INFERENCE_FIRST_CHUNK, "s", explicit_bucket_boundaries_advisory=buckets
        )
        self._input_tokens = meter.create_counter(c.USED_INPUT_TOKENS, "{token}")
        self._output_tokens = meter.create_counter(c.USED_OUTPUT_TOKENS, "{token}")
        self._server_durations = meter.create_histogram(
            c.SERVER_DURATION, "s", explicit_bucket_boundaries_advisory=buckets
        )

    def begin(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the trace of a record, within the context that the request's headers name."""
        carrier = {
            name.decode(): value.decode("latin-1") for name, value in headers if name.lower() in _CONTEXT_HEADERS
        }
        kind = SpanKind.SERVER if record.kind == "request" else SpanKind.INTERNAL
        context = _PROPAGATOR.extract(carrier) if carrier else None
        start, cause = _nanoseconds(record, record.started), record.cause
        links = [Link(cause.span.get_span_context())] if isinstance(cause, RequestTrace) else None
        span = self._tracer.start_span(record.kind, context, kind, links=links, start_time=start)
        record.trace = RequestTrace(self._tracer, record, span)

    def __call__(self, record: RequestRecord) -> None:
        """End the spans of a closed record, and count it."""
        if record.kind == "request":
            self._server_durations.record(record.seconds, _http_attributes(record))
        trace = record.trace
        if not isinstance(trace, RequestTrace):
            return
        end = _nanoseconds(record, record.ended)
        if trace.turn is not None:
            trace.turn.set_attributes(trace.server | _turn_attributes(record) | _result_attributes(record))
            _set_status(trace.turn, record)
            trace.turn.end(end)
            self._count_turn(record)
        if record.kind == "request":
            trace.span.update_name(f"{record.method} {record.route}".strip())
            trace.span.set_attributes({**_http_attributes(record), c.PATH: record.path})
        _set_status(trace.span, record)
        trace.span.end(end)

    async def close(self) -> None:
        """Export what is left."""
        for provider in (self._traces, self._meters):
            if provider is not None:
                await asyncio.to_thread(provider.shutdown)

    def _count_turn(self, record: RequestRecord) -> None:
        attributes = _turn_attributes(record)
        if record.error is not None:
            attributes[c.ERROR_TYPE] = type(record.error).__name__
        self._durations.record((record.last_text or record.ended) - record.sent, attributes)
        if record.streamed and record.first_text:
            self._first_chunks.record(record.first_text - record.sent, attributes)
        if record.usage is not None:
            tokens = {**attributes, c.MODALITY: c.TEXT}
            self._input_tokens.add(record.usage.prompt_tokens, tokens)
            self._output_tokens.add(record.usage.completion_tokens, tokens)


def _operation(record: RequestRecord) -> str:
    return c.TEXT_COMPLETION if record.route == _COMPLETIONS else c.CHAT


def _turn_attributes(record: RequestRecord) -> Attributes:
    """Return attributes that clients cannot choose: metrics have them as well."""
    return {c.OPERATION: _operation(record), c.PROVIDER: c.DIFY, c.REQUEST_MODEL: record.app}


def _result_attributes(record: RequestRecord) -> Attributes:
    found: dict[str, AttributeValue | None] = {
        c.CONVERSATION: record.conversation_id,
        c.RESPONSE_ID: record.message_id,
        c.RESPONSE_MODEL: record.app,
        c.FINISH_REASONS: None if record.finish_reason is None else (record.finish_reason,),
        c.REQUEST_STREAM: True if record.streamed else None,
        c.TIME_TO_FIRST_CHUNK: record.first_text - record.sent if record.streamed and record.first_text else None,
        c.INPUT_TOKENS: None if record.usage is None else record.usage.prompt_tokens,
        c.OUTPUT_TOKENS: None if record.usage is None else record.usage.completion_tokens,
    }
    return {name: value for name, value in found.items() if value is not None}


def _http_attributes(record: RequestRecord) -> Attributes:
    attributes: Attributes = {c.METHOD: record.method, c.STATUS: record.status or 499, c.SCHEME: "http"}
    if record.route:
        attributes[c.ROUTE] = record.route
    if record.status >= 500:
        attributes[c.ERROR_TYPE] = type(record.error).__name__ if record.error is not None else str(record.status)
    return attributes


def _set_status(span: Span, record: RequestRecord) -> None:
    """Mark the failure of a span: a 4xx is none of the server's, as the conventions have it."""
    error = record.error
    if error is not None and (error.status >= 500 or record.status < 400):
        span.set_attribute(c.ERROR_TYPE, type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, error.reason))


def _nanoseconds(record: RequestRecord, moment: float) -> int:
    """Return a time of the record in nanoseconds since the epoch."""
    return int((record.began_at + (moment - record.started)) * 1e9)


def _server(url: str) -> Attributes:
    parts = urlsplit(url)
    return {
        c.SERVER_ADDRESS: parts.hostname or "",
        c.SERVER_PORT: parts.port or (443 if parts.scheme == "https" else 80),
    }
