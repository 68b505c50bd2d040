"""Chat streams on the wire: frames, their order, the status line, heartbeats."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODELS, chat_body, chunks_of, error_of, failure_of, frames_of, the_turn
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, demo_apps
from tests.limits import PATIENCE

CHUNK_KEYS = {"id", "object", "created", "model", "choices", "service_tier"}


async def stream_of(http: httpx2.AsyncClient, proxy: ProxyServer, text: str, **more: Any) -> str:
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(text, stream=True, **more))
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    return reply.text


@pytest.mark.parametrize("include_usage", [None, False, True])
@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_has_the_shape_of_openais(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, include_usage: bool | None
) -> None:
    more = {} if include_usage is None else {"stream_options": {"include_usage": include_usage}}
    before = int(time.time())
    chunks = chunks_of(await stream_of(http, proxy, "SAY<<one two three>>", model=model, **more))
    usage_chunk = chunks.pop() if include_usage else None
    first, *middle, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in middle)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == "one two three"
    assert last["choices"][0]["delta"] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all((chunk["choices"][0]["index"], chunk["choices"][0]["logprobs"]) == (0, None) for chunk in chunks)
    for chunk in chunks:
        assert set(chunk) - {"usage", "dify"} == CHUNK_KEYS
        assert chunk["object"] == "chat.completion.chunk"
        assert ("usage" in chunk) == bool(include_usage)
        assert chunk.get("usage") is None
    (identity,) = {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}
    assert identity[0].startswith("chatcmpl-")
    assert type(identity[1]) is int
    assert before <= identity[1] <= time.time()
    assert identity[2] == model
    if usage_chunk is not None:
        assert usage_chunk["choices"] == []
        usage = usage_chunk["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert usage_chunk["id"] == identity[0]


async def test_two_answers_have_different_ids(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    ids = {chunks_of(await stream_of(http, proxy, "hi"))[0]["id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_stream_has_headers_with_ids_and_against_buffering(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    reply = await http.post(
        f"{proxy.url}/chat/completions", json=chat_body("hi", stream=True), headers={"x-request-id": "my-own_id.1"}
    )
    headers = reply.headers
    assert headers["x-request-id"] == "my-own_id.1"
    assert headers["x-dify-conversation-id"] == log.runs[0].conversation_id
    assert headers["x-dify-message-id"] == log.runs[0].message_id
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert "content-encoding" not in headers


@pytest.mark.parametrize("sent", ["a b", "x" * 129, "a;b", ""])
async def test_an_unsafe_request_id_is_replaced(proxy: ProxyServer, http: httpx2.AsyncClient, sent: str) -> None:
    reply = await http.get(f"{proxy.origin}/health", headers={"x-request-id": sent})
    assert reply.headers["x-request-id"].startswith("req_")


async def test_every_piece_is_sent_as_soon_as_it_arrives(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """The answer takes ten pieces of 300 ms. The first ones must arrive long before the run ends."""
    request = http.build_request("POST", f"{proxy.url}/chat/completions", json=chat_body("SLOW:10x300", stream=True))
    reply = await http.send(request, stream=True)
    seen = b""
    async for data in reply.aiter_raw():
        assert data.endswith(b"\n\n"), "a write ends inside a frame"
        seen += data
        if b"tick 2" in data:
            assert log.runs[0].state == "running"
            assert b"tick 6" not in seen
    assert seen.endswith(b"data: [DONE]\n\n")


# The status line


@pytest.mark.parametrize(
    ("word", "status"), [("ERROR:rate", 429), ("ERROR:bad", 502), ("ERROR:limit", 429), ("ERROR:crash", 502)]
)
@pytest.mark.parametrize(
    "model", ["demo-chat@1.11", "demo-advanced-chat@1.13", "demo-workflow@1.16", "demo-agent@1.16"]
)
async def test_an_early_failure_keeps_its_status(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, word: str, status: int
) -> None:
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(word, model, stream=True))
    assert reply.status_code == status
    error_of(reply)


@pytest.mark.parametrize("model", MODELS)
async def test_a_late_failure_is_an_error_frame(proxy: ProxyServer, http: httpx2.AsyncClient, model: str) -> None:
    body = await stream_of(http, proxy, "one two three four MIDERROR:rate", model=model)
    error = failure_of(body)
    assert error["code"] == "rate_limit_exceeded"
    assert '"content":"Hello' in body


async def test_the_status_line_waits_for_the_grace_and_no_longer(serve: Serve, http: httpx2.AsyncClient) -> None:
    """The failure comes before the end of the long grace, and after the end of the short one."""
    long, short = serve(first_event_grace=PATIENCE), serve(first_event_grace=0.1)
    body = chat_body("QUEUE:0.5 ERROR:rate", stream=True)
    reply = await http.post(f"{long.url}/chat/completions", json=body)
    assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
    body = chat_body("QUEUE:3 ERROR:rate", stream=True)
    async with http.stream("POST", f"{short.url}/chat/completions", json=body) as late:
        assert late.status_code == 200
        text = (await late.aread()).decode()
    assert failure_of(text)["code"] == "rate_limit_exceeded"
    assert '"role":"assistant"' in text


async def test_a_grace_of_zero_sends_the_status_line_at_once(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(first_event_grace=0)
    assert chunks_of(await stream_of(http, proxy, "SAY<<hi>>"))[-1]["choices"][0]["finish_reason"] == "stop"
    assert failure_of(await stream_of(http, proxy, "ERROR:rate"))["code"] == "rate_limit_exceeded"


# Heartbeats


@pytest.mark.parametrize("kind", ["chunk", "comment", "off"])
async def test_heartbeats_fill_silences_of_dify(serve: Serve, http: httpx2.AsyncClient, kind: str) -> None:
    proxy = serve(heartbeat=kind, heartbeat_interval=0.05, first_event_grace=0.1)
    body = await stream_of(http, proxy, "SLOW:3x300")
    comments = [frame for frame in frames_of(body) if frame.startswith(":")]
    chunks = chunks_of(body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    empty = [chunk for chunk in chunks if chunk["choices"][0]["delta"] == {} and "dify" not in chunk]
    assert sum("dify" in chunk for chunk in chunks) == 2  # the ids once they are known, and the last chunk
    assert "".join(delta.get("content", "") for delta in deltas) == "tick 1 tick 2 tick 3 "
    assert list(deltas[0]) == ["role", "content", "refusal"]
    assert (len(comments) > 3) == (kind == "comment")
    assert (len(empty) > 3) == (kind == "chunk")
    if kind == "off":
        assert not comments
        assert not empty


async def test_heartbeats_during_reasoning_are_comments(serve: Serve, http: httpx2.AsyncClient) -> None:
    """Some clients treat the first delta without reasoning as the end of the reasoning."""
    proxy = serve(heartbeat_interval=0.05)
    body = await stream_of(http, proxy, "SAY<<x>> THINK SLOW:1x120", model="demo-agent")
    kinds = [
        "beat" if frame.startswith(": ") else "thought" if "reasoning_content" in frame else "other"
        for frame in frames_of(body)
    ]
    while_thinking = kinds[kinds.index("thought") : len(kinds) - kinds[::-1].index("thought")]
    assert set(while_thinking) == {"beat", "thought"}


async def test_a_steady_stream_has_no_heartbeats(serve: Serve, http: httpx2.AsyncClient) -> None:
    """The answer takes longer than the heartbeat interval, but each pause in it is much shorter."""
    proxy = serve(heartbeat_interval=3)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(await stream_of(http, proxy, "SLOW:70x50"))]
    assert {} not in deltas[:-1]


async def test_difys_pings_are_not_relayed(pinging_demo: DemoServer, http: httpx2.AsyncClient) -> None:
    settings = Settings(dify_api_url=pinging_demo.url, apps=demo_apps(pinging_demo.url))
    with ProxyServer(settings) as proxy:
        body = await stream_of(http, proxy, "SLOW:4x150")
    assert "ping" not in body
    assert [len(list(group)) for _, group in itertools.groupby(frames_of(body))].count(1) == len(frames_of(body))


# Odd requests


async def test_stream_options_without_a_stream_are_ignored(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    body = chat_body("hi", stream_options={"include_usage": True})
    reply = await http.post(f"{proxy.url}/chat/completions", json=body)
    assert reply.status_code == 200
    assert reply.json()["object"] == "chat.completion"
    assert the_turn(log).body["response_mode"] == "streaming"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "*/*"])
async def test_the_accept_header_does_not_affect_streaming(
    proxy: ProxyServer, http: httpx2.AsyncClient, accept: str
) -> None:
    for stream, kind in ((True, "text/event-stream; charset=utf-8"), (False, "application/json")):
        reply = await http.post(
            f"{proxy.url}/chat/completions", json=chat_body("hi", stream=stream), headers={"Accept": accept}
        )
        assert reply.headers["content-type"] == kind


async def test_connections_are_reused(proxy: ProxyServer) -> None:
    """One connection serves streams, other answers and errors."""
    limits = httpx2.Limits(max_connections=1)
    async with httpx2.AsyncClient(limits=limits, timeout=PATIENCE) as http:
        peers = set()
        for body in (
            chat_body("hi", stream=True),
            chat_body("hi"),
            chat_body("ERROR:rate", stream=True),
            chat_body("hi", n=2),
            chat_body("hi", stream=True),
        ):
            reply = await http.post(f"{proxy.url}/chat/completions", json=body)
            peers.add(reply.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(peers) == 1


async def test_turns_run_concurrently(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    slow = asyncio.create_task(stream_of(http, proxy, "SLOW:40x100"))
    await log.wait_for(lambda log: log.runs)
    assert chunks_of(await stream_of(http, proxy, "SAY<<quick>>", model="demo-workflow"))
    assert not slow.done()
    assert chunks_of(await slow)
