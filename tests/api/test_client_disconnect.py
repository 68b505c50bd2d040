"""Abandoned runs are stopped: turns whose client disconnects."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.log import LoggedRun
from tests.api.chat_requests import MODELS, chat_body, chunks_of
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import ProxyServer

LONG = "SLOW:1000x100"
"""An answer far longer than any test, so that only the stop call ends it."""


async def stopped(log: DemoLog) -> LoggedRun:
    """Wait until the only run is stopped, by its own user, and its stream read to the end. Return it."""
    await log.wait_for(lambda log: log.stops and log.runs[0].state != "running")
    (run,) = log.runs
    (stop,) = log.stops
    assert (stop.task_id, stop.user, stop.effective) == (run.task_id, run.user, True)
    assert run.state == "stopped"
    assert run.first_event_at is not None
    assert run.first_event_at <= stop.at
    assert run.disconnected_at is None
    await log.wait_for(lambda log: log.open_requests == 0)
    return run


@pytest.mark.parametrize("model", MODELS)
async def test_a_disconnect_in_mid_stream_stops_the_run(proxy: ProxyServer, log: DemoLog, model: str) -> None:
    client = Client(proxy.port)
    await client.ask(LONG, model, stream=True)
    await client.read_until(b"tick 2")
    await client.disconnect()
    await stopped(log)


@pytest.mark.parametrize("model", MODELS)
async def test_a_disconnect_without_streaming_stops_the_run(proxy: ProxyServer, log: DemoLog, model: str) -> None:
    client = Client(proxy.port)
    await client.ask(LONG, model)
    await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
    await client.disconnect()
    await stopped(log)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("delay", ["QUEUE:0.7", "HEADERS:0.7"])
async def test_a_disconnect_before_the_task_id_is_known_stops_the_run(
    proxy: ProxyServer, log: DemoLog, delay: str, stream: bool
) -> None:
    """All modes and versions run concurrently. Pings have no task id, so the stop call waits for the first event."""
    clients = [Client(proxy.port) for _ in MODELS]
    for client, model in zip(clients, MODELS, strict=True):
        await client.ask(f"{LONG} {delay}", model, stream=stream)
    await log.wait_for(lambda log: len(log.runs) == len(MODELS))
    await asyncio.gather(*(client.disconnect() for client in clients))
    await log.wait_for(lambda log: all(run.state != "running" for run in log.runs))
    stops = {stop.task_id: stop for stop in log.stops}
    for run in log.runs:
        stop = stops[run.task_id]
        assert (run.state, stop.user, stop.effective, run.disconnected_at) == ("stopped", run.user, True, None)
        assert run.first_event_at is not None
        assert run.first_event_at <= stop.at


@pytest.mark.parametrize("path", ["/v1/completions", "/completions", "/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_route_stops_its_run(proxy: ProxyServer, log: DemoLog, path: str, stream: bool) -> None:
    client = Client(proxy.port, path)
    await client.ask(LONG, "demo-chat", stream=stream)
    await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
    await client.disconnect()
    await stopped(log)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reset_connection_stops_the_run(proxy: ProxyServer, log: DemoLog, stream: bool) -> None:
    client = Client(proxy.port)
    await client.ask(LONG, "demo-chat", stream=stream)
    await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
    await client.disconnect(reset=True)
    await stopped(log)


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_a_stream_of_the_official_client_stops_the_run(
    proxy: ProxyServer, log: DemoLog, stream: bool
) -> None:
    async with proxy.client() as client:
        if stream:
            answer = await client.chat.completions.create(
                model="demo-agent", messages=[{"role": "user", "content": LONG}], stream=True
            )
            async for _ in answer:
                break
            await answer.close()
        else:
            waiting = asyncio.create_task(
                client.chat.completions.create(model="demo-agent", messages=[{"role": "user", "content": LONG}])
            )
            await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await stopped(log)


async def test_a_run_with_a_dify_key_of_the_client_is_stopped(proxy: ProxyServer, log: DemoLog) -> None:
    """The stop call must use the same key."""
    async with httpx2.AsyncClient(verify=False) as http:
        headers = {"DIFY_API_KEY": "app-demo-workflow@1.13"}
        body = chat_body(LONG, stream=True, user="anna")
        async with http.stream("POST", f"{proxy.url}/chat/completions", json=body, headers=headers) as reply:
            async for data in reply.aiter_bytes():
                if b"tick 1" in data:
                    break
    await stopped(log)
    assert log.requests[-1].key == "app-demo-workflow@1.13"


async def test_runs_of_many_simultaneous_disconnects_are_stopped(proxy: ProxyServer, log: DemoLog) -> None:
    clients = [Client(proxy.port) for _ in range(20)]
    for number, client in enumerate(clients):
        await client.ask(LONG, MODELS[number % len(MODELS)], stream=number % 2 == 0)
    await log.wait_for(lambda log: len([run for run in log.runs if run.first_event_at]) == 20)
    await asyncio.gather(*(client.disconnect() for client in clients))
    await log.wait_for(lambda log: len(log.stops) == 20)
    assert {stop.task_id for stop in log.stops if stop.effective} == {run.task_id for run in log.runs}


async def test_upstream_connections_of_stopped_runs_are_closed(
    proxy: ProxyServer, log: DemoLog, demo: DemoServer
) -> None:
    client = Client(proxy.port)
    await client.ask(LONG, "demo-chat", stream=True)
    await client.read_until(b"tick 1")
    await client.disconnect()
    await stopped(log)
    await until(lambda: demo.open_connections == 0)


@pytest.mark.parametrize("model", MODELS)
async def test_complete_turns_are_not_stopped(proxy: ProxyServer, log: DemoLog, model: str) -> None:
    async with httpx2.AsyncClient(verify=False) as http:
        for stream in (True, False):
            reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", model, stream=stream))
            assert reply.status_code == 200
    await log.wait_for(lambda log: log.open_requests == 0)
    assert not log.stops
    assert [run.state for run in log.runs] == ["finished"] * 2
    assert all(run.disconnected_at is None for run in log.runs)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_abandoned_turn_without_task_id_is_closed_after_the_silence_timeout(
    serve: Serve, log: DemoLog, stream: bool
) -> None:
    client = Client(serve(silence_timeout=0.5, state_url="memory://").port)
    await client.ask("SILENCE", "demo-chat", stream=stream)
    await log.wait_for(lambda log: log.runs)
    await client.disconnect()
    await log.wait_for(lambda log: log.open_requests == 0)
    assert not log.stops


async def test_the_proxy_serves_requests_after_a_reset(proxy: ProxyServer, log: DemoLog) -> None:
    client = Client(proxy.port)
    await client.ask(LONG, "demo-chat", stream=True)
    await client.read_until(b"tick 1")
    await client.disconnect(reset=True)
    async with httpx2.AsyncClient(verify=False) as http:
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("SAY<<still here>>", stream=True))
    assert "still here" in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks_of(reply.text))
