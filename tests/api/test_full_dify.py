"""A Dify whose slots are all taken: clients that leave free them for the next ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoServer
from tests.api.chat_requests import chat_body
from tests.api.raw_client import Client
from tests.api.servers import ProxyServer, demo_apps
from tests.limits import PATIENCE

SLOTS = 10
OTHERS = 2
"""Streams of other programs, which take slots of the same Dify."""

ENDLESS = "SLOW:1000x100"
"""An answer that takes 100 s, longer than the test waits."""


@pytest.fixture
async def dify() -> AsyncIterator[DemoServer]:
    """A Dify with ten slots, two of which are taken by other programs."""
    with DemoServer(slots=SLOTS) as server:
        body = {"inputs": {}, "query": ENDLESS, "user": "other", "response_mode": "streaming"}
        headers = {"Authorization": "Bearer app-demo-agent-chat"}
        async with AsyncExitStack() as stack:
            for _ in range(OTHERS):
                http = await stack.enter_async_context(httpx2.AsyncClient(verify=False, timeout=PATIENCE))
                url = f"{server.url}/chat-messages"
                reply = await stack.enter_async_context(http.stream("POST", url, json=body, headers=headers))
                assert reply.status_code == 200
            yield server


async def test_clients_that_leave_a_full_dify_free_its_slots(dify: DemoServer, http: httpx2.AsyncClient) -> None:
    """The next client asks while Dify is full, and is answered after the stops."""
    log = dify.log
    with ProxyServer(Settings(dify_api_url=dify.url, apps=demo_apps(dify.url))) as proxy:
        assert (await http.get(f"{proxy.url}/models/demo-chat")).status_code == 200
        clients = [Client(proxy.port) for _ in range(SLOTS - OTHERS)]
        for number, client in enumerate(clients):
            await client.ask(ENDLESS, "demo-chat", stream=number % 2 == 0)
        await log.wait_for(lambda log: [bool(run.first_event_at) for run in log.runs] == [True] * SLOTS)
        body = chat_body("SAY<<at last>>", "demo-chat")
        next_one = asyncio.create_task(http.post(f"{proxy.url}/chat/completions", json=body))
        await asyncio.gather(*(client.disconnect() for client in clients))
        assert "at last" in (await next_one).text
        await log.wait_for(lambda log: len(log.stopped_runs) == SLOTS - OTHERS)
        assert {run.app for run in log.stopped_runs} == {"demo-chat"}
        assert len(log.active) == OTHERS
        assert log.peak_connections == SLOTS
