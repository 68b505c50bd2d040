"""Turns that wait for their conversation leave Dify's slots to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.servers import ProxyServer
from tests.api.slots import LONG, ask, questions, queued, status, until_free
from tests.limits import PATIENCE

SLOTS = 3

PATIENT: dict[str, Any] = {
    "timing": ClaimTiming(turn_spacing=0, lock_timeout=1000),
    "first_event_grace": 0.05,
    "heartbeat_interval": 0.1,
}
"""No turn gives up, and a client sees at once that its stream waits."""


async def a_conversation(proxy: ProxyServer, http: httpx2.AsyncClient, kind: str) -> dict[str, Any]:
    """Return the fields that name a conversation."""
    if kind == "chat":
        return {"conversation_id": (await ask(proxy, http, "first")).headers["x-dify-conversation-id"]}
    return {"conversation": (await http.post(f"{proxy.url}/conversations", json={})).json()["id"]}


async def say(proxy: ProxyServer, kind: str, text: str, **more: Any) -> Client:
    """Ask a streamed question, and return its client."""
    client = Client(proxy.port, "/v1/chat/completions" if kind == "chat" else "/v1/responses")
    await client.ask(text, "demo-chat", stream=True, **(more if kind == "chat" else {**more, "input": text}))
    return client


@asynccontextmanager
async def held(proxy: ProxyServer, log: DemoLog, kind: str, **name: Any) -> AsyncIterator[Client]:
    """Run a long turn of the conversation within the block, or until the block disconnects its client."""
    earlier = len(log.runs)
    holder = await say(proxy, kind, LONG, **name)
    await log.wait_for(lambda log: questions(log)[earlier:] == [LONG] and log.runs[-1].first_event_at)
    try:
        yield holder
    finally:
        await holder.disconnect()


async def waiting_turns(
    proxy: ProxyServer, http: httpx2.AsyncClient, kind: str, count: int, **name: Any
) -> list[Client]:
    """Start turns of a conversation that another turn holds, one after the other, and return their clients."""
    clients = []
    for number in range(count):
        clients.append(client := await say(proxy, kind, f"waiting {number}", **name))
        await client.read_until(b"\r\n\r\n")  # a stream that waits has its head after a while
        await without_slot(proxy, http)
    return clients


async def without_slot(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    """Wait until only the holder of the conversation has a slot, and no turn is queued for one."""
    async with asyncio.timeout(PATIENCE):
        while await used(proxy, http) != (1, 0):
            pass


async def used(proxy: ProxyServer, http: httpx2.AsyncClient) -> tuple[int, int]:
    """Return how many turns have a slot, and how many are queued for one."""
    now = await status(proxy, http)
    return now["in_use"], now["queued"]


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_turns_of_a_busy_conversation_hold_no_slot_while_they_wait(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, kind: str
) -> None:
    """As many as there are slots wait, and a turn of another conversation has its first text meanwhile."""
    proxy = limited(SLOTS, **PATIENT)
    name = await a_conversation(proxy, http, kind)
    async with held(proxy, log, kind, **name) as holder:
        clients = await waiting_turns(proxy, http, kind, SLOTS, **name)
        others = [await say(proxy, "chat", f"other {number} SLOW:1000x100") for number in range(SLOTS - 1)]
        for other in others:
            await other.read_until(b"tick 1")
        assert not [question for question in questions(log) if question.startswith("waiting")]
        await holder.disconnect()
        for client in clients:
            await client.read_until(b"[DONE]")
        for client in (*clients, *others):
            await client.disconnect()
    waited = [run for run in log.runs if run.question.startswith("waiting")]
    assert [run.question for run in waited] == [f"waiting {number}" for number in range(SLOTS)]
    assert len({run.conversation_id for run in waited}) == 1
    assert log.peak_active <= SLOTS
    await until_free(proxy, http)


async def test_a_turn_that_waits_too_long_for_its_conversation_has_no_slot_afterwards(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    proxy = limited(SLOTS, timing=ClaimTiming(turn_spacing=0, lock_timeout=0.3))
    for kind, param in (("chat", "conversation_id"), ("responses", "conversation")):
        name = await a_conversation(proxy, http, kind)
        async with held(proxy, log, kind, **name):
            path = "chat/completions" if kind == "chat" else "responses"
            body = chat_body("late", "demo-chat", **name) if kind == "chat" else {**name, "input": "late"}
            reply = await http.post(f"{proxy.url}/{path}", json={"model": "demo-chat", **body})
            error = reply.json()["error"]
            assert (reply.status_code, error["code"], error["param"]) == (409, "conversation_locked", param)
            assert await used(proxy, http) == (1, 0)
    assert "late" not in questions(log)


async def test_clients_that_leave_while_they_wait_hold_up_nobody(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    proxy = limited(SLOTS, **PATIENT)
    name = await a_conversation(proxy, http, "chat")
    async with held(proxy, log, "chat", **name) as holder:
        clients = await waiting_turns(proxy, http, "chat", 4, **name)
        for leaving in (clients[0], clients[2]):
            await leaving.disconnect()
        await holder.disconnect()
        for client in (clients[1], clients[3]):
            await client.read_until(b"[DONE]")
            await client.disconnect()
    assert questions(log)[2:] == ["waiting 1", "waiting 3"]
    await until_free(proxy, http)


async def test_a_conversation_that_another_process_holds(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Any
) -> None:
    state = SecretStr(f"sqlite:///{tmp_path}/state.db")
    one, two = (limited(SLOTS, state_url=state, **PATIENT) for _ in range(2))
    name = await a_conversation(one, http, "chat")
    async with held(one, log, "chat", **name) as holder:
        client = await say(two, "chat", "waiting", **name)
        await client.read_until(b"\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            while (await status(two, http))["in_use"]:
                pass
        await holder.disconnect()
        await client.read_until(b"[DONE]")
        await client.disconnect()
    assert log.runs[-1].conversation_id == name["conversation_id"]


async def test_only_so_many_turns_wait_for_conversations(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    """A further one is rejected at once, and does not wait for the end of the lock timeout."""
    proxy = limited(SLOTS, max_queued_turns=2, **PATIENT)
    name = await a_conversation(proxy, http, "chat")
    async with held(proxy, log, "chat", **name):
        clients = await waiting_turns(proxy, http, "chat", 2, **name)
        reply = await ask(proxy, http, "one too many", **name)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conversation_locked")
        for client in clients:
            await client.disconnect()
    await queued(proxy, http, 0)
