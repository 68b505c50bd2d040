"""The log line of each request: its outcome, and nothing that the client or the model said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import (
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    frame,
    message_frame,
    raw_dify,
    scripted,
)

Logs = Sequence[MutableMapping[str, Any]]

SECRET = "violetUmbrella4711"
KEY = "sk-team-0123456789abcdef"
FAILURE = frame("error", status=400, code="completion_request_error", message=f"[openai] Bad: {SECRET}")
ROWS = ("request_finished", "request_rejected", "background_finished", "inner_turn_finished")


def lines(logs: Logs) -> list[dict[str, Any]]:
    return [dict(entry) for entry in logs if entry["event"] in ROWS]


async def only(logs: Logs, event: str = "request_finished") -> dict[str, Any]:
    """Return the only line of ``event``, once it is there."""
    await until(lambda: any(entry["event"] == event for entry in logs))
    (entry,) = [entry for entry in lines(logs) if entry["event"] == event]
    return entry


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finished_turn(proxy: ProxyServer, http: httpx2.AsyncClient, stream: bool) -> None:
    with capture_logs() as logs:
        reply = await http.post(
            f"{proxy.url}/chat/completions",
            json=chat_body(SECRET, "demo-chat", stream=stream, user="anna"),
            headers={"X-Request-Id": "mine-1"},
        )
        entry = await only(logs)
    assert reply.headers["x-request-id"] == "mine-1"
    assert (entry["path"], entry["status"], entry["outcome"]) == ("/v1/chat/completions", 200, "stop")
    assert (entry["model"], entry["log_level"]) == ("demo-chat", "info")
    assert entry["first_text_ms"] <= entry["ms"]
    assert entry["completion_tokens"] > 0
    assert entry["price"]
    assert entry["user"] != "anna"
    assert SECRET not in str(logs)


async def test_the_route_is_logged_without_ids(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        await http.get(f"{proxy.origin}/v1/responses/resp_{SECRET}")
        await http.get(f"{proxy.origin}//v1/models/")
        await http.get(f"{proxy.origin}/v1/nothing")
        await until(lambda: len(lines(logs)) == 3)
    assert [(entry["path"], entry["status"]) for entry in lines(logs)] == [
        ("/v1/responses/{response_id}", 404),
        ("/v1/models", 200),
        ("/v1/nothing", 404),
    ]
    assert [entry["outcome"] for entry in lines(logs)] == [
        "rejected: response_not_found",
        "ok",
        "rejected: not_found",
    ]
    assert all(entry["error"] and entry["reason"] for entry in lines(logs) if entry["status"] == 404)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_at_once(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, stream: bool
) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(FAILURE), LAST_CHUNK]), at=raw_socket):
        with capture_logs() as logs:
            reply = await http.post(
                f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=stream)
            )
            entry = await only(logs)
    assert SECRET in reply.text
    assert (entry["status"], entry["outcome"]) == (reply.status_code, f"turn_failed: {reply.json()['error']['code']}")
    assert entry["error"]
    assert entry["reason"]
    assert SECRET not in str(logs)


async def test_a_stream_that_fails_under_a_200(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(message_frame(SECRET)), LAST_CHUNK]), at=raw_socket):
        with capture_logs() as logs:
            reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=True))
            entry = await only(logs)
    assert reply.status_code == 200
    assert (entry["status"], entry["outcome"], entry["error"], entry["log_level"]) == (
        200,
        "turn_failed: upstream_incomplete",
        "StreamCut",
        "warning",
    )
    assert SECRET not in str(logs)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves(serve: Serve, stream: bool) -> None:
    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await writer.drain()
        arrived.set()
        await dify.stopped.wait()

    arrived = asyncio.Event()
    async with raw_dify(answer) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
        with capture_logs() as logs:
            client = Client(proxy.port, "/v1/chat/completions")
            await client.ask("hi", "raw", stream=stream)
            await arrived.wait()
            if stream:
                await client.read_until(b"one")
            await client.disconnect()
            entry = await only(logs)
    assert (entry["outcome"], entry["status"]) == ("client_gone", 200 if stream else 499)
    assert entry["task_id"] if stream else "task_id" not in entry


async def test_a_response_in_the_background_has_its_own_line(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        body = {"model": "demo-chat", "input": SECRET, "background": True}
        name = (await http.post(f"{proxy.url}/responses", json=body)).json()["id"]
        entry = await only(logs, "background_finished")
        request = await only(logs)
    assert (entry["response_id"], entry["outcome"], entry["model"]) == (name, "stop", "demo-chat")
    assert entry["completion_tokens"] > 0
    assert (request["outcome"], "completion_tokens" in request) == ("ok", False)
    assert SECRET not in str(logs)


async def test_a_cancelled_response_says_so(serve: Serve, http: httpx2.AsyncClient) -> None:
    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await writer.drain()
        arrived.set()
        await dify.stopped.wait()

    arrived = asyncio.Event()
    async with raw_dify(answer) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
        with capture_logs() as logs:
            body = {"model": "raw", "input": "hi", "background": True}
            name = (await http.post(f"{proxy.url}/responses", json=body)).json()["id"]
            await arrived.wait()
            await http.post(f"{proxy.url}/responses/{name}/cancel")
            entry = await only(logs, "background_finished")
    assert entry["outcome"] == "cancelled"


@pytest.mark.parametrize("model", ["stability-ai/sdxl", "gpt-image-1", None])
async def test_pictures_have_their_model_and_prediction(
    image_proxy: ProxyServer, predictions: ReplicateLog, http: httpx2.AsyncClient, model: str | None
) -> None:
    with capture_logs() as logs:
        body = {"prompt": SECRET, "model": model, "size": "64x64"}
        reply = await http.post(f"{image_proxy.url}/images/generations", json=body)
        entry = await only(logs)
    assert reply.status_code == 200, reply.text
    (prediction,) = predictions.predictions
    assert (entry["predictions"], entry["model"], entry["outcome"]) == (prediction.id, "stability-ai/sdxl", "ok")
    assert SECRET not in str(logs)


async def test_keys_are_never_logged(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(api_keys=(KEY,))
    body = chat_body("hi", "demo-chat")
    with capture_logs() as logs:
        for headers in (
            {"Authorization": f"Bearer {KEY}"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": KEY},
            {"X-API-Key": KEY},
            {"DIFY_API_KEY": f"app-{SECRET}"},
            {},
        ):
            await http.post(f"{proxy.url}/chat/completions", json=body, headers=headers)
        await http.get(f"{proxy.url}/models?key={KEY}")
        await until(lambda: len(lines(logs)) == 7)
    assert KEY not in str(logs)
    assert SECRET not in str(logs)
    assert lines(logs)[0]["caller"].startswith("key-")
    assert [entry["status"] for entry in lines(logs)].count(401) >= 4


async def test_the_end_user_is_logged_if_wanted(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(log_end_users=True)
    with capture_logs() as logs:
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "demo-chat", user="anna"))
        assert (await only(logs))["user"] == "anna"


async def test_a_slow_body_has_one_line(serve: Serve) -> None:
    proxy = serve(body_rate_window=1, min_body_rate=1000)
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in await reader.readline()
        writer.close()
        await until(lambda: bool(lines(logs)))
    (entry,) = lines(logs)
    assert (entry["event"], entry["status"], entry["outcome"]) == ("request_finished", 408, "rejected: request_timeout")


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_are_logged_at_debug(
    proxy: ProxyServer, http: httpx2.AsyncClient, path: str, caplog: Callable[..., Any]
) -> None:
    with capture_logs() as logs:
        await http.get(f"{proxy.origin}{path}")
        assert (await only(logs))["log_level"] == "debug"
