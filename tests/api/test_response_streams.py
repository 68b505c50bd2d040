"""``/v1/responses``, streamed: the events, and the end of the stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import ResponseStreamEvent

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODELS, check_error, error_of
from tests.api.raw_client import Client
from tests.api.response_requests import KEYS, expect_error, get, stream_of, text_of
from tests.api.servers import ProxyServer, demo_apps
from tests.response_events import events_of

OPENING = ["response.created", "response.in_progress"]
MESSAGE = ["response.output_item.added", "response.content_part.added"]
MESSAGE_DONE = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


@pytest.mark.parametrize("model", MODELS)
async def test_events_come_in_openais_order(proxy: ProxyServer, http: httpx2.AsyncClient, model: str) -> None:
    events = await stream_of(http, proxy, "SAY<<one two three>>", model)
    types = [event["type"] for event in events]
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    deltas = types.count("response.output_text.delta")
    message = [*MESSAGE, *["response.output_text.delta"] * deltas, *MESSAGE_DONE]
    assert types[:2] == OPENING
    assert types[-len(message) - 1 :] == [*message, "response.completed"]
    assert text_of(events) == "one two three" == last["output"][-1]["content"][0]["text"]
    assert set(last) - {"dify"} == KEYS == set(first)
    assert await get(http, proxy, f"/responses/{last['id']}") == last


@pytest.mark.parametrize("text", ["hello", "THINK", "THINK:separated", "CITE", "CJK", "EMPTY", "FILE", "TOOL"])
@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat", "demo-agent-chat"])
async def test_the_sdks_helper_returns_the_stored_response(client: AsyncOpenAI, model: str, text: str) -> None:
    async with client.responses.stream(model=model, input=text) as stream:
        final = await stream.get_final_response()
    stored = await client.responses.retrieve(final.id)
    assert final.output_text == stored.output_text
    output: list[Any] = [*final.output]
    stored_output: list[Any] = [*stored.output]
    assert [(item.type, item.id) for item in output] == [(item.type, item.id) for item in stored_output]


async def test_reasoning_is_a_separate_item(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    events = await stream_of(http, proxy, "THINK SAY<<aloud>>", "demo-chat")
    thoughts = "".join(event["delta"] for event in events if event["type"] == "response.reasoning_summary_text.delta")
    reasoning, message = events[-1]["response"]["output"]
    assert thoughts
    assert reasoning["summary"] == [{"type": "summary_text", "text": thoughts}]
    assert reasoning["id"].startswith("rs_")
    assert message["content"][0]["text"] == "aloud" == text_of(events)


async def test_citations_are_annotations(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    events = await stream_of(http, proxy, "CITE", "demo-chat")
    added = [event["annotation"] for event in events if event["type"] == "response.output_text.annotation.added"]
    (message,) = events[-1]["response"]["output"]
    assert message["content"][0]["annotations"] == added
    for note in added:
        assert set(note) == {"type", "start_index", "end_index", "url", "title"}


async def test_moderation_ends_a_response_as_incomplete(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    events = await stream_of(http, proxy, "MODERATE", "demo-chat")
    last = events[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert last["response"]["status"] == "incomplete"
    assert await get(http, proxy, f"/responses/{last['response']['id']}") == last["response"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("text", ["MIDERROR", "CUT"])
async def test_a_failure_in_mid_stream_is_reported_and_the_failed_response_stored(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, text: str
) -> None:
    reply = await http.post(f"{proxy.url}/responses", json={"model": model, "input": text, "stream": True})
    assert reply.status_code == 200, reply.text
    assert not reply.content.endswith(b"data: [DONE]\n\n")
    *_, error, failed = events_of(reply.content)
    assert error["type"] == "error"
    assert set(error) == {"type", "sequence_number", "error"}
    check_error(error["error"])
    assert failed["type"] == "response.failed"
    response = failed["response"]
    assert set(response) - {"dify"} == KEYS
    assert (response["status"], response["completed_at"]) == ("failed", None)
    assert response["error"] == {"code": response["error"]["code"], "message": error["error"]["message"]}
    assert await get(http, proxy, f"/responses/{response['id']}") == response


async def test_the_sdk_raises_a_failure_in_mid_stream(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="demo-chat", input="MIDERROR:rate", stream=True)
    types: list[str] = []
    with pytest.raises(openai.APIError):
        await _gather(stream, types)
    assert types[:2] == OPENING


async def _gather(stream: AsyncStream[ResponseStreamEvent], types: list[str]) -> None:
    async for event in stream:
        types.append(event.type)  # noqa: PERF401 - the events before a failure are needed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "status"),
    [("ERROR:rate", 429), ("ERROR:bad", 502), ("ERROR:auth", 502), ("ERROR:limit", 429), ("ERROR:nginx", 502)],
)
async def test_an_early_failure_keeps_its_status(
    proxy: ProxyServer, http: httpx2.AsyncClient, text: str, status: int, stream: bool
) -> None:
    body = {"model": "demo-chat", "input": text, "stream": stream}
    reply = await http.post(f"{proxy.url}/responses", json=body)
    chat = await http.post(
        f"{proxy.url}/chat/completions", json={"model": "demo-chat", "messages": [{"role": "user", "content": text}]}
    )
    assert reply.status_code == chat.status_code == status
    assert error_of(reply) == error_of(chat)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_404(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    await expect_error(client.responses.create(model="nobody", input="hi", stream=stream), 404, "model_not_found")


async def test_silences_are_filled_with_keepalives(demo: DemoServer, http: httpx2.AsyncClient) -> None:
    """Keepalives repeat the previous sequence number, and official clients ignore them."""
    settings = Settings(
        dify_api_url=demo.url,
        apps=demo_apps(demo.url),
        heartbeat="chunk",
        heartbeat_interval=0.05,
        first_event_grace=0.05,
    )
    with ProxyServer(settings) as proxy:
        events = await stream_of(http, proxy, "SLOW:3x600", "demo-chat")
        async with (
            proxy.client() as client,
            client.responses.stream(model="demo-chat", input="SLOW:3x200") as stream,
        ):
            final = await stream.get_final_response()
    types = [event["type"] for event in events]
    assert types.count("keepalive") >= 6
    # The opening events are sent at the end of the grace, so keepalives also fill the silence before the first delta.
    assert "keepalive" in types[: types.index("response.output_item.added")]
    assert final.output_text == "tick 1 tick 2 tick 3 "


async def test_a_disconnect_stops_the_run(proxy: ProxyServer, log: DemoLog) -> None:
    client = Client(proxy.port, "/v1/responses")
    await client.ask("", "demo-chat", input="SLOW:1000x100", stream=True)
    await client.read_until(b"tick 2")
    name = json.loads(client.seen.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    await client.disconnect()
    await log.wait_for(lambda log: log.stops and log.runs[0].state == "stopped")
    async with proxy.client() as sdk:
        await expect_error(sdk.responses.retrieve(name), 404, "response_not_found")


async def test_streams_continue_one_conversation(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    async def chain(model: str) -> None:
        previous: dict[str, str] = {}
        responses = []
        for number in range(3):
            events = await stream_of(http, proxy, f"{number} {model}", model, **previous)
            responses.append(events[-1]["response"])
            previous = {"previous_response_id": responses[-1]["id"]}
        assert len({response["dify"]["conversation_id"] for response in responses}) == 1
        questions = [run.question for run in log.runs if (run.app, run.dialect) == tuple(model.split("@"))]
        assert questions == [f"{number} {model}" for number in range(3)]

    await asyncio.gather(
        *(chain(f"demo-{mode}@{version}") for mode in ("chat", "advanced-chat") for version in ("1.11", "1.16"))
    )
