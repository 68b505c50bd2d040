"""The scripted Dify with as many slots as a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial

import httpx2
import pytest

from demo.tests.conftest import Caller
from openai_dify_proxy_demo import DemoLog, DemoServer

ENDLESS = "SLOW:1000x100"
SLOTS = 3


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(slots=SLOTS, release=0.1) as running:
        yield running


@pytest.fixture
def log(server: DemoServer) -> DemoLog:
    return server.log


@pytest.fixture
async def client(server: DemoServer) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": "Bearer app-demo-chat"}
    async with httpx2.AsyncClient(verify=False, timeout=60, base_url=server.url, headers=headers) as http:
        yield http


def waiting(number: int, log: DemoLog) -> bool:
    return log.waiting_connections == number


class Streams:
    """Streams of endless runs, each on its own connection."""

    def __init__(self, server: DemoServer) -> None:
        self.server = server
        self.open = [AsyncExitStack() for _ in range(SLOTS)]
        self.reading: list[AsyncIterator[bytes]] = []

    async def start(self) -> None:
        for stack in self.open:
            http = await stack.enter_async_context(httpx2.AsyncClient(verify=False, timeout=60))
            body = {"inputs": {}, "query": ENDLESS, "user": "u1", "response_mode": "streaming"}
            headers = {"Authorization": "Bearer app-demo-chat"}
            url = f"{self.server.url}/chat-messages"
            reply = await stack.enter_async_context(http.stream("POST", url, json=body, headers=headers))
            parts = reply.aiter_raw()
            await anext(parts)
            self.reading.append(parts)

    async def close(self) -> None:
        for stack in self.open:
            await stack.aclose()


@pytest.fixture
async def streams(server: DemoServer) -> AsyncIterator[Streams]:
    """All slots are taken by streams of endless runs."""
    running = Streams(server)
    await running.start()
    yield running
    await running.close()


async def test_a_full_server_answers_no_request_until_a_slot_is_free(
    streams: Streams, client: httpx2.AsyncClient, log: DemoLog
) -> None:
    info = asyncio.create_task(client.get("/info"))
    await log.wait_for(lambda log: log.waiting_connections == 1)
    assert (log.connections, log.peak_connections, len(log.active)) == (SLOTS, SLOTS, SLOTS)
    assert not info.done()
    await streams.open[0].aclose()
    assert (await info).status_code == 200
    assert log.peak_connections == SLOTS
    assert len(log.active) == SLOTS, "the run goes on without its client"


async def test_a_stop_call_waits_as_any_request_and_cuts_the_run_once_its_stream_is_closed(
    streams: Streams, client: httpx2.AsyncClient, log: DemoLog
) -> None:
    run = log.runs[0]
    stop = asyncio.create_task(client.post(f"/chat-messages/{run.task_id}/stop", json={"user": "u1"}))
    await log.wait_for(lambda log: log.waiting_connections == 1)
    assert not log.stops
    await streams.open[0].aclose()
    assert (await stop).status_code == 200
    await log.wait_for(lambda log: log.stopped_runs)
    assert log.stopped_runs == [run]
    assert run.disconnected_at is not None
    assert run.finished_at is not None
    assert run.disconnected_at < run.finished_at
    assert len(log.active) == SLOTS - 1


async def test_requests_are_served_in_the_order_of_their_connections(
    server: DemoServer, streams: Streams, log: DemoLog
) -> None:
    before = len(log.requests)
    replies = []
    async with AsyncExitStack() as stack:
        for number, path in enumerate(("info", "parameters", "site"), start=1):
            http = await stack.enter_async_context(httpx2.AsyncClient(verify=False, timeout=60))
            headers = {"Authorization": "Bearer app-demo-chat", "Connection": "close"}
            replies.append(asyncio.create_task(http.get(f"{server.url}/{path}", headers=headers)))
            await log.wait_for(partial(waiting, number))
        await streams.open[0].aclose()
        await asyncio.gather(*replies)
    assert [request.path for request in log.requests][before:] == ["/v1/info", "/v1/parameters", "/v1/site"]


async def test_a_client_that_leaves_while_it_waits_has_started_a_run(
    server: DemoServer, streams: Streams, log: DemoLog
) -> None:
    """Its request is in the socket when the server reads it."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b'{"inputs": {}, "query": "SLOW:1000x100 left", "user": "u1", "response_mode": "streaming"}'
    head = (
        "POST /v1/chat-messages HTTP/1.1\r\nHost: dify\r\nAuthorization: Bearer app-demo-chat\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    await log.wait_for(lambda log: log.waiting_connections == 1)
    writer.close()
    await writer.wait_closed()
    await streams.open[0].aclose()
    await log.wait_for(lambda log: log.runs[-1].question.endswith("left") and log.runs[-1].disconnected_at)
    assert log.runs[-1].state == "running"


async def test_an_idle_connection_has_a_slot_until_it_is_closed(
    server: DemoServer, client: httpx2.AsyncClient, log: DemoLog
) -> None:
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(httpx2.AsyncClient(verify=False, timeout=60)) for _ in range(SLOTS)]
        for http in idle:
            await http.get(f"{server.url}/")
        info = asyncio.create_task(client.get("/info"))
        await log.wait_for(lambda log: log.waiting_connections == 1)
        await idle[0].aclose()
        assert (await info).status_code == 200


async def test_1_13_closes_idle_connections() -> None:
    with DemoServer("1.13", slots=1) as server:
        async with httpx2.AsyncClient(verify=False, timeout=60) as idle:
            await idle.get(f"{server.url}/")
            async with httpx2.AsyncClient(verify=False, timeout=60) as http:
                assert (await http.get(f"{server.url}/")).status_code == 200
    assert server.log.peak_connections == 1


def test_a_server_without_slots_counts_its_connections(demo: Caller) -> None:
    demo.log.clear()
    demo.ask("demo-chat", "hi")
    assert demo.log.peak_connections >= 1
    assert (demo.log.waiting_connections, demo.log.peak_active, len(demo.log.active)) == (0, 1, 0)
