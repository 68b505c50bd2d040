"""Occupy the slots of a Dify, and observe the turns that wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import chat_body
from tests.api.raw_client import Client
from tests.api.servers import ProxyServer, demo_apps
from tests.limits import PATIENCE

LONG = "SLOW:1000x100"
"""An answer far longer than any test: its client ends it by disconnecting."""

MEMORY = SecretStr("memory://")


async def status(proxy: ProxyServer, http: httpx2.AsyncClient) -> dict[str, Any]:
    """Return the status of the only Dify."""
    ready = await http.get(f"{proxy.origin}/ready")
    assert ready.status_code == 200
    (dify,) = ready.json()["dify"]
    return dict(dify)


async def queued(proxy: ProxyServer, http: httpx2.AsyncClient, count: int) -> None:
    """Wait until so many turns are queued."""
    async with asyncio.timeout(PATIENCE):
        while (await status(proxy, http))["queued"] != count:
            pass


async def ask(
    proxy: ProxyServer, http: httpx2.AsyncClient, text: str, *, headers: dict[str, str] | None = None, **more: Any
) -> httpx2.Response:
    return await http.post(f"{proxy.url}/chat/completions", json=chat_body(text, **more), headers=headers)


@asynccontextmanager
async def occupied(proxy: ProxyServer, log: DemoLog, count: int = 1) -> AsyncIterator[list[Client]]:
    """Occupy slots with long turns until the block ends, or until the block disconnects their clients."""
    clients = [Client(proxy.port) for _ in range(count)]
    for client in clients:
        await client.ask(LONG, "demo-chat", stream=True)
    await log.wait_for(
        lambda log: len([run for run in log.runs if run.question == LONG and run.first_event_at]) >= count
    )
    try:
        yield clients
    finally:
        for client in clients:
            await client.disconnect()


def questions(log: DemoLog) -> list[str]:
    return [run.question for run in log.runs]


async def until_free(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await status(proxy, http))["in_use"]:
            pass


@asynccontextmanager
async def dify_of(connections: int, **settings: Any) -> AsyncIterator[tuple[ProxyServer, DemoServer]]:
    """Run a proxy in front of a Dify that serves ``connections`` at a time, as a real one does."""
    async with AsyncExitStack() as stack:
        demo = stack.enter_context(DemoServer(slots=connections))
        settings = {"state_url": MEMORY, **settings}
        proxy = ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), **settings))
        yield stack.enter_context(proxy), demo
