"""Background responses: they outlive their client's connection, and every process can serve them."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from openai_dify_proxy.responses.background import LEASE_SECONDS
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import Json, chat_body, error_of, turns
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.response_requests import (
    dify_conversation,
    expect_error,
    get,
    not_found,
    respond,
    stream_of,
    text_of,
    the_request,
)
from tests.api.servers import Clock, ProxyServer
from tests.cli.program import Program, Running
from tests.components.servers import free_ports
from tests.limits import PATIENCE
from tests.response_events import events_of
from tests.state.servers import ValkeyServer, valkey_program

RUNNING = ("queued", "in_progress")


@pytest.fixture(params=["sqlite", "valkey"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A state that two replicas share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.db"
        return
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
        yield server.url()


@pytest.fixture
def replicas(serve: Serve, state: str) -> tuple[ProxyServer, ProxyServer]:
    return serve(state_url=state), serve(state_url=state)


async def start(client: AsyncOpenAI, text: str, model: str = "demo-chat", **more: Any) -> Response:
    response: Response = await client.responses.create(model=model, input=text, background=True, **more)
    assert response.status in RUNNING
    assert response.background is True
    return response


async def stream_until(port: int, text: str, delta: str) -> tuple[Client, str]:
    """Stream a background response until ``delta``. Return the client and the response id."""
    client = Client(port, "/v1/responses")
    await client.ask("", "demo-chat", input=text, stream=True, background=True)
    await client.read_until(delta.encode())
    return client, json.loads(client.seen.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]


async def ended(client: AsyncOpenAI, name: str, timeout: float = PATIENCE) -> Response:
    """Poll a response until it no longer runs, as in OpenAI's guide."""
    async with asyncio.timeout(timeout):
        while (response := await client.responses.retrieve(name)).status in RUNNING:  # noqa: ASYNC110 - clients poll
            await asyncio.sleep(0.05)
        return response


async def events_after(
    http: httpx2.AsyncClient, proxy: ProxyServer, name: str, number: int | None = None
) -> list[Json]:
    query = {"stream": "true"} | ({} if number is None else {"starting_after": str(number)})
    reply = await http.get(f"{proxy.url}/responses/{name}", params=query, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    return events_of(reply.content, first=0 if number is None else number + 1)


async def first_delta(http: httpx2.AsyncClient, proxy: ProxyServer, name: str) -> None:
    """Read a stream until the first delta. By then the state holds the task id for a cancellation."""
    async with http.stream("GET", f"{proxy.url}/responses/{name}", params={"stream": "true"}) as reply:
        async for line in reply.aiter_lines():
            if line == "event: response.output_text.delta":
                return


@pytest.mark.parametrize("model", ["demo-chat", "demo-agent-chat", "demo-advanced-chat@1.13", "demo-workflow"])
async def test_a_response_completes_without_a_connection(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    started = await start(client, "SLOW:3x50", model)
    assert started.output == []
    response = await ended(client, started.id)
    assert (response.status, response.output_text) == ("completed", "tick 1 tick 2 tick 3 ")
    assert response.usage is not None
    assert response.completed_at is not None


async def test_a_response_outlives_a_disconnect_in_mid_stream(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    streaming, name = await stream_until(proxy.port, "SLOW:10x50", "tick 2")
    await streaming.disconnect(reset=True)
    response = await ended(client, name)
    assert response.output_text == "".join(f"tick {number} " for number in range(1, 11))
    assert not log.stops
    # The part read before the disconnect and the rest form the whole stream.
    body = streaming.seen.partition(b"\r\n\r\n")[2]
    seen = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {") and line.endswith(b"}")]
    rest = await events_after(http, proxy, name, seen[-1]["sequence_number"])
    assert text_of([*seen, *rest]) == response.output_text
    assert [*seen, *rest] == await events_after(http, proxy, name)


async def test_a_background_stream_has_one_additional_event(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    events = await stream_of(http, proxy, "THINK SAY<<one two>>", "demo-chat", background=True)
    plain = await stream_of(http, proxy, "THINK SAY<<one two>>", "demo-chat")
    types = [event["type"] for event in events]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [*dict.fromkeys(types)] == [
        "response.created",
        "response.queued",
        *dict.fromkeys(event["type"] for event in plain[1:]),
    ]
    assert [events[0]["response"]["status"], events[2]["response"]["status"]] == ["queued", "in_progress"]
    assert await get(http, proxy, f"/responses/{events[-1]['response']['id']}") == events[-1]["response"]


async def test_another_replica_polls_streams_and_continues_a_response(
    replicas: tuple[ProxyServer, ProxyServer], http: httpx2.AsyncClient, log: DemoLog
) -> None:
    one, two = replicas
    async with one.client() as here, two.client() as there:
        started = await start(here, "SLOW:20x250")
        follows = [asyncio.create_task(events_after(http, proxy, started.id)) for proxy in replicas]
        await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
        late = asyncio.create_task(events_after(http, two, started.id, 4))
        assert (await there.responses.retrieve(started.id)).status in RUNNING
        await expect_error(respond(there, "hi", previous_response_id=started.id), 400, None, "previous_response_id")
        by_one, by_two = await asyncio.gather(*follows)
        assert by_one == by_two
        assert by_one[5:] == await late
        assert text_of(by_one) == "".join(f"tick {number} " for number in range(1, 21))
        response = await there.responses.retrieve(started.id)
        assert by_one[-1]["response"] == response.to_dict()
        assert await events_after(http, two, started.id) == by_one
        assert await events_after(http, two, started.id, by_one[-1]["sequence_number"]) == []
        after = await respond(there, "RECALL", previous_response_id=started.id)
        assert dify_conversation(after) == dify_conversation(response)
        assert json.loads(after.output_text.splitlines()[0]) == ["user", "SLOW:20x250"]


async def test_another_replica_cancels_a_response(
    replicas: tuple[ProxyServer, ProxyServer], http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """It sends Dify's stop call, with the stored task id and user."""
    one, two = replicas
    models = ("demo-chat@1.11", "demo-advanced-chat@1.16", "demo-workflow@1.13")
    async with one.client() as here, two.client() as there:
        started = [await start(here, f"SLOW:1000x100 {model}", model) for model in models]
        for response in started:
            await first_delta(http, two, response.id)
        cancelled = await asyncio.gather(*(there.responses.cancel(response.id) for response in started))
        assert [response.status for response in cancelled] == ["cancelled"] * len(models)
        for response in cancelled:
            assert (response.incomplete_details, response.error) == (None, None)
            assert response.output_text.startswith("tick 1") or not response.output
            again = await here.responses.cancel(response.id)
            assert again == response == await here.responses.retrieve(response.id)
    await log.wait_for(lambda log: all(run.state == "stopped" for run in log.runs))
    for run in log.runs:
        assert any(stop.effective and (stop.task_id, stop.user) == (run.task_id, run.user) for stop in log.stops)


async def test_a_cancelled_response_ends_its_stream_and_its_conversation_is_not_continued(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    first = await respond(client, "SAY<<one>>")
    started = await start(client, "SLOW:1000x100", previous_response_id=first.id)
    following = asyncio.create_task(events_after(http, proxy, started.id))
    await log.wait_for(lambda log: len(log.runs) == 2 and log.runs[1].first_event_at)
    assert (await client.responses.cancel(started.id)).status == "cancelled"
    last = (await following)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert last["response"]["incomplete_details"] is None
    after = await respond(client, "SAY<<two>>", previous_response_id=first.id)
    assert dify_conversation(after) != dify_conversation(first)
    assert "User: SAY<<one>>\n\nAssistant: one" in the_request(log, "SAY<<two>>").body["query"]


async def test_only_running_responses_can_be_cancelled(client: AsyncOpenAI, log: DemoLog) -> None:
    done = await ended(client, (await start(client, "hello")).id)
    await expect_error(client.responses.cancel(done.id), 400, None, "response_id")
    failed = await ended(client, (await start(client, "ERROR:rate")).id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "rate_limit_exceeded"
    await expect_error(client.responses.cancel(failed.id), 400, None, "response_id")


async def test_a_cancellation_needs_no_body_and_no_content_type(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """The official JavaScript client sends neither. A web page would send an ``Origin`` header."""
    started = await start(client, "SLOW:1000x100")
    path = f"{proxy.url}/responses/{started.id}/cancel"
    for more in ({"headers": {"origin": "https://example.com"}}, {"content": b"{}"}):
        refusal = await http.post(path, **more)
        assert (refusal.status_code, error_of(refusal)["code"]) == (415, "unsupported_media_type")
    assert (await http.post(path)).json()["status"] == "cancelled"


async def test_a_failure_is_stored_and_ends_the_stream(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    events = await stream_of(http, proxy, "MIDERROR", "demo-chat", background=True)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    name = events[0]["response"]["id"]
    assert await events_after(http, proxy, name) == events
    assert await get(http, proxy, f"/responses/{name}") == events[-1]["response"]


async def test_a_deleted_response_is_stopped_and_leaves_no_entries(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    proxy = serve(state_url=f"sqlite:///{tmp_path}/state.db")
    async with proxy.client() as client:
        started = await start(client, "SLOW:1000x100 zanzibar")
        done = await start(client, "LONG:100000 quetzal")
        await ended(client, done.id)
        following = asyncio.create_task(events_after(http, proxy, started.id))
        await log.wait_for(lambda log: len([run for run in log.runs if run.first_event_at]) == 2)
        for name in (started.id, done.id):
            await client.responses.delete(name)
            reply = await http.delete(f"{proxy.url}/responses/{name}")
            await not_found(reply, "response_not_found")
            reply = await http.get(f"{proxy.url}/responses/{name}", params={"stream": "true"})
            await not_found(reply, "response_not_found")
        await log.wait_for(lambda log: log.runs[0].state != "running")
        assert (await following)[-1]["type"] in {"response.incomplete", "error"}
    entries = _keys(tmp_path / "state.db")
    assert not [key for key in entries if done.id in key or (started.id in key and not key.startswith("cancelled:"))]


async def test_deleting_a_response_at_another_replica_ends_its_stream(
    replicas: tuple[ProxyServer, ProxyServer], http: httpx2.AsyncClient, log: DemoLog
) -> None:
    one, two = replicas
    async with one.client() as here:
        started = await start(here, "SLOW:1000x100")
        await first_delta(http, two, started.id)
        following = asyncio.create_task(events_after(http, two, started.id))
        await first_delta(http, two, started.id)
        await here.responses.delete(started.id)
        last = (await following)[-1]
    if last["type"] == "error":  # the response was deleted before the stream saw its end
        assert last["error"]["code"] == "response_not_found"
    else:
        assert last["response"]["status"] == "cancelled"


def _keys(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        (table,) = (name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        return [key for (key,) in database.execute(f"SELECT key FROM {table}")]


async def test_a_long_stream_is_stored_in_few_entries(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    """A replay has the same events, although they are stored in blocks."""
    proxy = serve(state_url=f"sqlite:///{tmp_path}/state.db")
    events = await stream_of(http, proxy, "SLOW:600x3", "demo-chat", background=True)
    name = events[0]["response"]["id"]
    assert text_of(events) == "".join(f"tick {number} " for number in range(1, 601))
    assert await events_after(http, proxy, name) == events
    middle = events[len(events) // 2]["sequence_number"]
    assert await events_after(http, proxy, name, middle) == events[middle + 1 :]
    blocks = [key for key in _keys(tmp_path / "state.db") if key.startswith("stream:")]
    assert 4 <= len(blocks) <= 12


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "", "9" * 5000])
async def test_starting_after_must_be_a_number(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, number: str
) -> None:
    started = await start(client, "hello")
    query = {"stream": "true", "starting_after": number}
    reply = await http.get(f"{proxy.url}/responses/{started.id}", params=query)
    assert (reply.status_code, error_of(reply)["param"]) == (400, "starting_after")


async def test_keepalives_fill_the_silences_of_a_replayed_stream(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    proxy = serve(heartbeat="chunk", heartbeat_interval=0.4)
    async with proxy.client() as client:
        started = await start(client, "SLOW:2x2000")
        events = await events_after(http, proxy, started.id)
    assert [event["type"] for event in events].count("keepalive") >= 3
    assert text_of(events) == "tick 1 tick 2 "


async def test_a_background_turn_belongs_to_its_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create()
    started = await start(client, "SLOW:3x100", conversation=conversation.id)
    after = await respond(client, "RECALL", conversation=conversation.id)  # waits for the first turn
    first = await client.responses.retrieve(started.id)
    assert first.status == "completed"
    assert dify_conversation(first) == dify_conversation(after)
    assert json.loads(after.output_text.splitlines()[1]) == ["assistant", first.output_text.strip()]


# Dead processes and unreachable state


@contextmanager
def process(directory: Path, demo: DemoServer, state: str, **env: str) -> Iterator[tuple[Running, int]]:
    """Run a real server process. Yield it and its port."""
    directory.mkdir()
    program = Program(directory)
    (directory / "apps.toml").write_text('[apps.demo-chat]\napi_key = "app-demo-chat"\n')
    started = program.start(
        "serve", "--port", "0", "--config", "apps.toml", DIFY_API_URL=demo.url, STATE_URL=state, **env
    )
    with started as running:
        yield running, int(running.url().removesuffix("/v1").rpartition(":")[2])


async def test_responses_of_dead_processes_become_failed(
    serve: Serve, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    """After SIGKILL they fail when the lease ends, after SIGTERM when the grace period ends."""
    state = f"sqlite:///{tmp_path}/state.db"
    clock = Clock(ahead=-1000)  # no lease ends by this clock
    proxy = serve(state_url=state, clock=clock)
    with process(tmp_path / "killed", demo, state) as (killed, port):
        one, lost = await stream_until(port, "SLOW:1000x100 lost", "tick 3")
        two, cancelled = await stream_until(port, "SLOW:1000x100 cancelled", "tick 3")
        with process(tmp_path / "ended", demo, state, SHUTDOWN_GRACE="0") as (ending, other_port):
            three, shut = await stream_until(other_port, "SLOW:1000x100 shut", "tick 3")
            await three.disconnect()
            assert await asyncio.to_thread(ending.end, signal.SIGTERM) == 0
        with process(tmp_path / "graceful", demo, state) as (graceful, last_port):
            four, spared = await stream_until(last_port, "SLOW:8x200 spared", "tick 3")
            await four.disconnect()
            assert await asyncio.to_thread(graceful.end, signal.SIGTERM) == 0
        killed.end(signal.SIGKILL)
        await asyncio.gather(one.disconnect(), two.disconnect())
    async with proxy.client() as client:
        assert (await client.responses.retrieve(spared)).status == "completed"
        response = await client.responses.retrieve(shut)
        assert response.status == "failed"
        assert response.error is not None
        assert "shut down" in response.error.message
        assert response.output_text.startswith("tick 1 tick 2 ")
        assert (await events_after(http, proxy, shut))[-1]["type"] == "response.failed"
        following = asyncio.create_task(events_after(http, proxy, lost))
        # Before the lease ends it can be cancelled, which sends the stop call to Dify.
        assert (await client.responses.retrieve(cancelled)).status == "in_progress"
        assert (await client.responses.cancel(cancelled)).status == "cancelled"
        assert (await client.responses.retrieve(cancelled)).status == "cancelled"
        assert any(stop.effective and stop.task_id == the_task(log, "cancelled") for stop in log.stops)
        assert (await client.responses.retrieve(lost)).status == "in_progress"
        clock.ahead = LEASE_SECONDS
        response = await ended(client, lost)
        assert response.status == "failed"
        assert response.error is not None
        assert response.error.code == "server_error"
        events = await following
        assert text_of(events).startswith("tick 1 tick 2 ")
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2]["error"]["code"] == "worker_died"
        await client.responses.delete(lost)
        await expect_error(client.responses.retrieve(lost), 404, "response_not_found")


def the_task(log: DemoLog, word: str) -> str:
    (run,) = [run for run in log.runs if run.question.endswith(word)]
    return run.task_id


async def test_without_state_background_responses_are_unavailable(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    (port,) = free_ports(1)
    proxy = serve(state_url=f"valkey://127.0.0.1:{port}")
    for stream in (False, True):
        body = {"model": "demo-chat", "input": "hello", "background": True, "stream": stream}
        reply = await http.post(f"{proxy.url}/responses", json=body)
        assert reply.status_code == 503
        assert error_of(reply)["code"] == "state_unavailable"
    assert not turns(log)


async def test_a_short_outage_of_the_state_loses_nothing(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    """It restarts empty. The running response is stored again, and its end can be retrieved."""
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as valkey:
        proxy = serve(state_url=valkey.url())
        client, name = await stream_until(proxy.port, "SLOW:12x250", "tick 2")
        valkey.kill()
        reply = await http.get(f"{proxy.url}/responses/{name}")
        assert (reply.status_code, error_of(reply)["code"]) == (503, "state_unavailable")
        valkey.start()
        await log.wait_for(lambda log: log.runs[0].state == "finished")
        async with proxy.client() as sdk, asyncio.timeout(PATIENCE):
            while not await is_known(sdk, name):  # noqa: ASYNC110 - clients poll
                await asyncio.sleep(0.1)
            response = await ended(sdk, name)
        await client.read_until(b"event: response.completed")
        await client.disconnect()
    assert client.seen.count(b'"delta":"tick ') == 12
    assert response.output_text == "".join(f"tick {number} " for number in range(1, 13))


async def is_known(client: AsyncOpenAI, name: str) -> bool:
    try:
        await client.responses.retrieve(name)
    except openai.APIStatusError:
        return False
    return True


async def test_a_rejected_request_leaves_no_entries(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    proxy = serve(state_url=f"sqlite:///{tmp_path}/state.db")
    body = {"model": "nobody", "input": "zanzibar", "background": True}
    reply = await http.post(f"{proxy.url}/responses", json=body)
    assert reply.status_code == 404
    body = {"model": "demo-chat", "input": "zanzibar", "background": True, "conversation_id": "no-uuid"}
    reply = await http.post(f"{proxy.url}/responses", json=body)
    assert reply.status_code == 400
    assert (await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"))).status_code == 200  # creates it
    assert not [key for key in _keys(tmp_path / "state.db") if key.partition(":")[0] in {"resp", "progress"}]
