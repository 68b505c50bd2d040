"""Traces and metrics for OpenTelemetry, as a collector receives them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    app_settings,
    chunk,
    frame,
    message_frame,
    raw_dify,
    scripted,
)
from tests.limits import PATIENCE

SECRET = "violetUmbrella4711"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CONVERSATION = "22222222-2222-4333-8444-555555555555"
USED = frame(
    "message_end",
    conversation_id=CONVERSATION,
    metadata={"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
)


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.bodies.append((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"]
        return [
            span
            for one in requests
            for found in one.resource_spans
            for scope in found.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        requests = [ExportMetricsServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/metrics"]
        return {
            metric.name: metric
            for one in requests
            for found in one.resource_metrics
            for scope in found.scope_metrics
            for metric in scope.metrics
        }

    def service(self) -> dict[str, Any]:
        request = next(ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces")
        return values(request.resource_spans[0].resource.attributes)


def values(attributes: Any) -> dict[str, Any]:
    return {attribute.key: value_of(attribute) for attribute in attributes}


def value_of(attribute: KeyValue) -> Any:
    kind = attribute.value.WhichOneof("value")
    assert kind is not None
    found = getattr(attribute.value, kind)
    return [item.string_value for item in found.values] if kind == "array_value" else found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    yield collector
    collector.server.shutdown()
    thread.join(PATIENCE)
    collector.server.server_close()


async def received(collector: Collector, count: int) -> dict[str, Any]:
    """Return the spans by name, once there are ``count``."""
    await until(lambda: len(collector.spans) >= count)
    assert len(collector.spans) == count
    return {span.name: span for span in collector.spans}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_is_a_child_of_its_request(
    collector: Collector, serve: Serve, http: httpx2.AsyncClient, stream: bool
) -> None:
    async with raw_dify(
        scripted([SSE_HEAD, chunk(frame("message", answer=SECRET, conversation_id=CONVERSATION), USED), LAST_CHUNK])
    ) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"support": app_settings("support", "app-raw", dify.url)})
        reply = await http.post(
            f"{proxy.url}/chat/completions",
            json=chat_body(SECRET, "support", stream=stream, user="anna"),
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"},
        )
        assert reply.status_code == 200
        spans = await received(collector, 2)
        (turn,) = dify.turns
    request, inference = spans["POST /v1/chat/completions"], spans["chat support"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert (inference.trace_id.hex(), inference.parent_span_id) == (TRACE, request.span_id)
    assert turn.headers["traceparent"] == f"00-{TRACE}-{inference.span_id.hex()}-01"
    assert turn.headers["tracestate"] == "vendor=1"
    assert (request.kind, inference.kind) == (request.SPAN_KIND_SERVER, request.SPAN_KIND_CLIENT)
    assert request.start_time_unix_nano <= inference.start_time_unix_nano < inference.end_time_unix_nano
    had = values(inference.attributes)
    first_chunk = had.pop("gen_ai.response.time_to_first_chunk", None)
    assert (first_chunk is not None and first_chunk > 0) if stream else first_chunk is None
    assert had == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "dify",
        "gen_ai.request.model": "support",
        "gen_ai.response.model": "support",
        "gen_ai.response.id": "11111111-2222-4333-8444-555555555555",
        "gen_ai.conversation.id": CONVERSATION,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
        "server.address": "127.0.0.1",
        "server.port": int(dify.url.split(":")[2].split("/")[0]),
    } | ({"gen_ai.request.stream": True} if stream else {})
    assert values(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
    }
    assert collector.service()["service.name"] == "openai-dify-proxy"
    sent = b"".join(body for _, body in collector.bodies)
    assert SECRET.encode() not in sent
    assert b"anna" not in sent


async def test_a_stream_that_failed_is_an_error(collector: Collector, serve: Serve, http: httpx2.AsyncClient) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one")), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"support": app_settings("support", "app-raw", dify.url)})
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "support", stream=True))
        spans = await received(collector, 2)
    for span in spans.values():
        assert span.status.code == span.status.STATUS_CODE_ERROR
        assert values(span.attributes)["error.type"] == "StreamCut"


async def test_an_error_of_the_client_is_none_of_the_server(
    collector: Collector, serve: Serve, http: httpx2.AsyncClient
) -> None:
    proxy = serve()
    await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "unknown"))
    (span,) = (await received(collector, 1)).values()
    assert span.status.code == span.status.STATUS_CODE_UNSET
    assert values(span.attributes)["http.response.status_code"] == 404
    assert len(span.trace_id.hex()) == 32


async def test_metrics_have_the_names_of_the_conventions(
    collector: Collector, serve: Serve, http: httpx2.AsyncClient
) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one"), USED), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"support": app_settings("support", "app-raw", dify.url)})
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "support", stream=True))
        await until(lambda: len(collector.metrics) >= 5)
    found = collector.metrics
    assert found.keys() == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
        "http.server.request.duration",
    }
    (point,) = found["gen_ai.client.inference.usage.output_tokens"].sum.data_points
    assert point.as_int == 4
    assert values(point.attributes)["gen_ai.request.model"] == "support"
    (duration,) = found["gen_ai.client.inference.duration"].histogram.data_points
    assert duration.count == 1


async def test_a_response_in_the_background_is_a_trace_of_its_own_with_a_link(
    collector: Collector, serve: Serve, http: httpx2.AsyncClient
) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one"), END), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"support": app_settings("support", "app-raw", dify.url)})
        body = {"model": "support", "input": "hi", "background": True}
        context = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert (await http.post(f"{proxy.url}/responses", json=body, headers=context)).status_code == 200
        spans = await received(collector, 3)
    assert spans.keys() == {"POST /v1/responses", "response", "chat support"}
    request, response, inference = spans["POST /v1/responses"], spans["response"], spans["chat support"]
    assert inference.trace_id == response.trace_id != request.trace_id
    assert response.parent_span_id == b""
    assert [(link.trace_id.hex(), link.span_id) for link in response.links] == [(TRACE, request.span_id)]
    assert (len(request.links), len(inference.links)) == (0, 0)


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
async def test_nothing_is_sent_while_it_is_off(
    collector: Collector, serve: Serve, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, off: dict[str, str]
) -> None:
    for name, value in off.items():
        monkeypatch.setenv(name, value)
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one"), END), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"support": app_settings("support", "app-raw", dify.url)})
        await http.post(
            f"{proxy.url}/chat/completions",
            json=chat_body("hi", "support"),
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        (turn,) = dify.turns
    assert "traceparent" not in turn.headers
    assert collector.bodies == []
