"""Abandoned turns are stopped, also in a Dify whose slots are all taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec import json
from structlog.testing import capture_logs
from structlog.typing import EventDict

from openai_dify_proxy.events import Event, TurnFinished
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.turns.stopping import HURRY_SECONDS, Stopper
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.wire.dify import Mode
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.raw_client import until
from tests.limits import PATIENCE

SLOTS = 10
ENDLESS = "SLOW:1000x100"
"""An answer that takes 100 s, longer than any test waits."""


@pytest.fixture
def full_dify() -> Iterator[DemoServer]:
    with DemoServer(slots=SLOTS) as running:
        yield running


@pytest.fixture(scope="module")
def dify() -> Iterator[DemoServer]:
    with DemoServer(faults=True) as running:
        yield running


@pytest.fixture
def log(dify: DemoServer) -> DemoLog:
    dify.log.clear()
    return dify.log


@pytest.fixture
async def client() -> AsyncIterator[DifyClient]:
    http = HttpClient(connect_timeout=PATIENCE)
    yield DifyClient(http)
    await http.close()


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


async def ask(client: DifyClient, server: DemoServer, question: str, *, silence: float = PATIENCE) -> DifyStream:
    app = DifyApp(server.url, "app-demo-chat")
    body = {"inputs": {}, "query": question, "user": "u", "response_mode": "streaming", "auto_generate_name": False}
    exchange = await client.generate(app, "/chat-messages", json.encode(body))
    decoder = DifyEventDecoder("chat", origin=app.origin, own_key=True)
    limits = TurnLimits(silence, 2 * PATIENCE)
    return DifyStream(exchange, decoder, app, "u", limits)


async def ask_all(client: DifyClient, server: DemoServer, count: int) -> list[DifyStream]:
    """Start ``count`` endless turns, and return their streams once each has its first event."""
    streams = [await ask(client, server, ENDLESS) for _ in range(count)]
    for stream in streams:
        await stream.next()
    return streams


async def stop_one(client: DifyClient, server: DemoServer, mode: Mode = "chat") -> None:
    """Start one endless turn, abandon it, and wait for the end of its stop, by the route of ``mode``."""
    (stream,) = await ask_all(client, server, 1)
    stop = Stopper(client).abandon(stream, mode)
    assert stop is not None
    await stop


async def events_of(stream: DifyStream) -> AsyncIterator[Event]:
    while not stream.ended:
        for event in await stream.next():
            yield event


def is_closed(stream: DifyStream) -> bool:
    return stream.exchange.ended


async def test_ten_turns_that_are_abandoned_at_once_are_cut_in_a_full_dify(
    client: DifyClient, full_dify: DemoServer, logs: list[EventDict]
) -> None:
    log = full_dify.log
    stopper = Stopper(client)
    streams = await ask_all(client, full_dify, SLOTS)
    assert (log.connections, len(log.active)) == (SLOTS, SLOTS)
    next_one = await ask(client, full_dify, "SAY<<at last>>")
    stops = [stopper.abandon(stream, "chat") for stream in streams]
    await asyncio.gather(*[stop for stop in stops if stop is not None])
    await log.wait_for(lambda log: len(log.stopped_runs) == SLOTS)
    assert sum(entry["event"] == "turn_stopped" for entry in logs) == SLOTS
    events = [event async for event in events_of(next_one)]
    assert isinstance(events[-1], TurnFinished)
    assert log.peak_connections == SLOTS


async def test_a_turn_that_is_abandoned_while_a_stop_call_is_overdue_is_closed_first(client: DifyClient) -> None:
    """This Dify never notices closed streams, so no stop call is served."""
    with DemoServer(slots=SLOTS, release=2 * PATIENCE) as server:
        stopper = Stopper(client)
        first, second, *others = await ask_all(client, server, SLOTS)
        stopper.abandon(first, "chat")
        await until(lambda: is_closed(first))
        assert not is_closed(second)
        stopper.abandon(second, "chat")
        await asyncio.sleep(0)  # its task starts
        assert is_closed(second)
        await stopper.close(0)
        assert not server.log.stops
        for stream in others:
            stream.close()


async def test_a_dify_with_room_ends_the_stream_itself(
    client: DifyClient, dify: DemoServer, log: DemoLog, logs: list[EventDict]
) -> None:
    await stop_one(client, dify)
    await log.wait_for(lambda log: log.stopped_runs)
    (run,) = log.runs
    assert run.disconnected_at is None
    assert [(entry["event"], entry["task_id"]) for entry in logs] == [("turn_stopped", run.task_id)]


async def test_a_turn_that_is_abandoned_twice_is_stopped_once(
    client: DifyClient, dify: DemoServer, log: DemoLog
) -> None:
    (stream,) = await ask_all(client, dify, 1)
    stopper = Stopper(client)
    stop = stopper.abandon(stream, "chat")
    assert stop is not None
    assert stopper.abandon(stream, "chat") is stop
    await stop
    assert len(log.stops) == 1


async def test_a_stop_that_dify_rejects_is_logged_with_the_reason(
    client: DifyClient, dify: DemoServer, log: DemoLog, logs: list[EventDict]
) -> None:
    """The stop route of another mode rejects the call."""
    await stop_one(client, dify, "workflow")
    (entry,) = logs
    assert (entry["event"], entry["task_id"]) == ("stop_failed", log.runs[0].task_id)
    assert "mode" in entry["error"]
    await log.wait_for(lambda log: log.runs[0].disconnected_at)


async def test_a_turn_without_a_task_id_is_logged_as_not_stopped(
    client: DifyClient, dify: DemoServer, log: DemoLog, logs: list[EventDict]
) -> None:
    stream = await ask(client, dify, "SILENCE", silence=0.2)
    stop = Stopper(client).abandon(stream, "chat")
    assert stop is not None
    await stop
    assert [(entry["event"], entry["task_id"]) for entry in logs] == [("stop_failed", None)]
    assert not log.stops


async def test_closing_stops_what_was_abandoned_just_before_in_a_full_dify(
    client: DifyClient, full_dify: DemoServer, logs: list[EventDict]
) -> None:
    log = full_dify.log
    stopper = Stopper(client)
    streams = await ask_all(client, full_dify, SLOTS)
    for stream in streams:
        stopper.abandon(stream, "chat")
    await stopper.close(PATIENCE)
    await log.wait_for(lambda log: len(log.stopped_runs) == SLOTS)
    assert [entry["event"] for entry in logs] == ["stops_awaited", *["turn_stopped"] * SLOTS]


async def test_closing_in_a_hurry_closes_the_streams_first(client: DifyClient, full_dify: DemoServer) -> None:
    log = full_dify.log
    stopper = Stopper(client)
    streams = await ask_all(client, full_dify, SLOTS)
    for stream in streams:
        stopper.abandon(stream, "chat")
    closing = asyncio.create_task(stopper.close(HURRY_SECONDS))
    for _ in range(3):
        await asyncio.sleep(0)  # it starts
    assert all(map(is_closed, streams))
    await closing
    await log.wait_for(lambda log: all(run.disconnected_at for run in log.runs))


async def test_closing_logs_how_many_stops_are_unconfirmed(
    client: DifyClient, dify: DemoServer, log: DemoLog, logs: list[EventDict]
) -> None:
    """Two turns have no task id yet, and the stop call of one is rejected."""
    stopper = Stopper(client)
    for _ in range(2):
        stopper.abandon(await ask(client, dify, "SILENCE"), "chat")
    rejected, stopped = await ask_all(client, dify, 2)
    stopper.abandon(rejected, "workflow")
    stopper.abandon(stopped, "chat")
    await stopper.close(HURRY_SECONDS)
    assert logs[-1] == {"event": "stops_unconfirmed", "count": 3, "log_level": "warning"}
    await log.wait_for(lambda log: log.stopped_runs)
