"""``GET /metrics``: what it counts, who may read it, and labels that clients cannot choose."""

from __future__ import annotations

import asyncio
import secrets

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.servers import (
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    demo_apps,
    frame,
    message_frame,
    raw_dify,
    scripted,
)
from tests.cli.program import Program
from tests.limits import PATIENCE

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
P = "openai_dify_proxy_"


async def scrape(http: httpx2.AsyncClient, origin: str, **headers: str) -> Samples:
    reply = await http.get(f"{origin}/metrics", headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(reply.text)
    return {
        (sample.name.removeprefix(P), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples with these labels."""
    return sum(
        found for (other, had), found in samples.items() if other == name and labels.items() <= dict(had).items()
    )


async def test_turns_are_counted(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve()
    tokens = 0
    for stream in (False, True):
        body = chat_body("hi", "demo-chat", stream=stream, stream_options={"include_usage": True} if stream else None)
        reply = await http.post(f"{proxy.url}/chat/completions", json={k: v for k, v in body.items() if v is not None})
        assert reply.status_code == 200
        if not stream:
            tokens = reply.json()["usage"]["completion_tokens"]
    found = await scrape(http, proxy.origin)
    route = {"route": "/v1/chat/completions"}
    assert value(found, "requests_total", method="POST", status="200", **route) == 2
    assert value(found, "request_duration_seconds_count", **route) == 2
    assert value(found, "turns_total", app="demo-chat", outcome="stop") == 2
    assert value(found, "first_text_seconds_count", app="demo-chat") == 2
    assert value(found, "overhead_seconds_count") == 2
    assert 0 < value(found, "overhead_seconds_sum") < value(found, "request_duration_seconds_sum", **route)
    assert value(found, "tokens_total", app="demo-chat", kind="completion") == 2 * tokens
    assert value(found, "price_total", app="demo-chat") > 0
    assert value(found, "dify_up") == 1
    assert value(found, "app_usable", app="demo-chat") == 1
    assert value(found, "build_info") == 1
    assert value(found, "open_requests") == 1  # this one
    again = await scrape(http, proxy.origin)
    assert value(again, "turns_total", app="demo-chat") == 2
    assert value(again, "requests_total", route="/metrics", status="200") == 1


async def test_failures_are_counted(serve: Serve, http: httpx2.AsyncClient) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one")), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "raw", stream=True))
        found = await scrape(http, proxy.origin)
    assert value(found, "requests_total", route="/v1/chat/completions", status="200") == 1
    assert value(found, "turns_total", app="raw", outcome="turn_failed") == 1
    assert value(found, "upstream_errors_total", app="raw", kind="StreamCut") == 1


async def test_a_failed_turn_costs_what_dify_counted(serve: Serve, http: httpx2.AsyncClient) -> None:
    outputs = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_price": "0.5", "currency": "USD"}}
    node = frame("node_finished", data={"node_id": "1", "node_type": "llm", "outputs": outputs})
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame("one")), chunk(node), LAST_CHUNK])) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "raw", stream=True))
        found = await scrape(http, proxy.origin)
    assert value(found, "turns_total", app="raw", outcome="turn_failed") == 1
    assert value(found, "tokens_total", app="raw", kind="prompt") == 7
    assert value(found, "price_total", app="raw", currency="USD") == 0.5


async def test_open_streams_and_clients_that_leave(serve: Serve, http: httpx2.AsyncClient) -> None:
    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await writer.drain()
        await dify.stopped.wait()

    async with raw_dify(answer) as dify:
        apps = {"raw": app_settings("raw", "app-raw", dify.url)}
        proxy = serve(dify_api_url=dify.url, apps=apps, dify_max_concurrent=1)
        client = Client(proxy.port, "/v1/chat/completions")
        await client.ask("hi", "raw", stream=True)
        await client.read_until(b"one")
        found = await scrape(http, proxy.origin)
        assert (value(found, "open_streams"), value(found, "running_turns"), value(found, "turn_limit")) == (1, 1, 1)
        await client.disconnect()
        async with asyncio.timeout(PATIENCE):
            while value(found, "turns_total", app="raw", outcome="client_gone") < 1:
                found = await scrape(http, proxy.origin)
    assert value(found, "open_streams") == 0


async def test_pictures_are_counted(serve_images: Serve, predictions: ReplicateLog, http: httpx2.AsyncClient) -> None:
    proxy = serve_images()
    body = {"prompt": "a cat", "size": "64x64"}
    for model in ("stability-ai/sdxl", "black-forest-labs/flux-schnell", "gpt-image-1", None):
        reply = await http.post(f"{proxy.url}/images/generations", json={**body, "model": model})
        assert reply.status_code == 200, reply.text
    found = await scrape(http, proxy.origin)
    assert value(found, "pictures_total", model="stability-ai/sdxl") == 3  # the default model too
    assert value(found, "pictures_total", model="other") == 1


async def test_clients_choose_no_label(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve()
    await http.get(f"{proxy.url}/models")
    before = len(await scrape(http, proxy.origin))
    sizes = []
    for _ in range(2):
        for _ in range(20):
            odd = secrets.token_hex(8)
            await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", odd))
            await http.get(f"{proxy.url}/{odd}")
            await http.get(f"{proxy.url}/responses/resp_{odd}", headers={"X-Request-Id": odd})
            await http.request("DELETE", f"{proxy.url}/models/{odd}")
        sizes.append(len(await scrape(http, proxy.origin)))
    assert before < sizes[0] == sizes[1]
    found = await scrape(http, proxy.origin)
    assert value(found, "requests_total", route="other", status="404", method="other") == 40


async def test_metrics_need_an_admin_key(serve: Serve, http: httpx2.AsyncClient) -> None:
    key = "sk-client-0123456789"
    closed, opened = serve(api_keys=(key,)), serve(api_keys=(key,), metrics_open=True)
    assert (await http.get(f"{closed.origin}/metrics")).status_code == 401
    refused = await http.get(f"{closed.origin}/metrics", headers={"Authorization": f"Bearer {key}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_required")
    assert (await http.get(f"{opened.origin}/metrics")).status_code == 200


async def test_openmetrics_is_served_on_request(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    reply = await http.get(f"{proxy.origin}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")


@pytest.mark.parametrize("workers", [1, 2])
async def test_workers_add_up_to_what_clients_counted(program: Program, demo: DemoServer, workers: int) -> None:
    env = {"DIFY_API_URL": demo.url, "DIFY_API_KEY": "app-demo-chat", "WORKERS": str(workers)}
    assert "demo-chat" in demo_apps(demo.url)
    turns, rejected = 24, 8
    with program.start("serve", "--port", "0", **env) as server:
        url = server.url()
        for number in range(turns + rejected):  # each on its own connection, so that all workers answer
            async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http:
                body = chat_body("hi", "any") if number < turns else {"messages": []}
                reply = await http.post(f"{url}/chat/completions", json=body)
                assert reply.status_code == (200 if number < turns else 400)
        async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http, asyncio.timeout(PATIENCE):
            origin = url.removesuffix("/v1")
            while True:  # a worker passes its counts on once a second
                found = await scrape(http, origin)
                requests = value(found, "requests_total", route="/v1/chat/completions")
                if requests >= turns + rejected and value(found, "overhead_seconds_count") >= turns:
                    break
        assert value(found, "requests_total", route="/v1/chat/completions", status="200") == turns
        assert value(found, "requests_total", route="/v1/chat/completions", status="400") == rejected
        assert value(found, "turns_total", app="dify", outcome="stop") == turns
        assert value(found, "request_duration_seconds_count", route="/v1/chat/completions") == turns + rejected
        assert value(found, "overhead_seconds_count") == turns
        assert value(found, "build_info") == 1
