"""A Dify that serves a fixed number of connections, as a real one does: the proxy never takes all of them."""

from __future__ import annotations

import asyncio
from functools import partial

import httpx2

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.slots import LONG, ask, dify_of, occupied, queued, status, until_free
from tests.limits import PATIENCE

SHORT = "SLOW:5x20"


async def test_forty_streams_at_ten_connections() -> None:
    """Each is answered, or rejected with a ``Retry-After`` that proves true. Dify always has two connections free."""
    async with dify_of(10, max_queued_turns=15) as (proxy, demo), httpx2.AsyncClient(verify=False) as http:
        rejections = 0
        await ask(proxy, http, SHORT)  # shows how long turns take

        async def chat(number: int) -> None:
            nonlocal rejections
            body = chat_body(SHORT, stream=True, user=f"user-{number}")
            answer = await http.post(f"{proxy.url}/chat/completions", json=body, timeout=PATIENCE)
            if answer.status_code == 429:
                rejections += 1
                await asyncio.sleep(int(answer.headers["retry-after"]))
                answer = await http.post(f"{proxy.url}/chat/completions", json=body, timeout=PATIENCE)
            assert answer.status_code == 200, answer.text
            assert "[DONE]" in answer.text

        await asyncio.gather(*(chat(number) for number in range(40)))
        assert rejections
        assert demo.log.peak_active == 8
        assert len(demo.log.runs) == 41
        async with asyncio.timeout(PATIENCE):
            while demo.log.waiting_connections:  # of a probe, which gives up after less than a second
                await status(proxy, http)


async def test_stop_calls_reach_a_dify_whose_slots_are_taken() -> None:
    async with dify_of(10) as (proxy, demo), httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http:
        async with occupied(proxy, demo.log, 8) as clients:
            waiting = [Client(proxy.port) for _ in range(20)]
            for number, client in enumerate(waiting):
                await client.ask(LONG, "demo-chat", stream=True, user=f"user-{number}")
            await queued(proxy, http, 20)
            for stopped, client in enumerate(clients, 1):
                await client.disconnect()
                await demo.log.wait_for(partial(has, stops=stopped, runs=8 + stopped))
            assert demo.log.peak_active == 8
            for client in waiting:
                await client.disconnect()
        await demo.log.wait_for(lambda log: not log.active)


def has(log: DemoLog, *, stops: int, runs: int) -> bool:
    return len(log.stopped_runs) == stops and len(log.runs) == runs


async def test_auto_finds_the_size_of_a_larger_dify() -> None:
    """The limit leaves two of forty connections to control calls. No request waits in Dify."""
    async with dify_of(40) as (proxy, demo), httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http:
        clients = [Client(proxy.port) for _ in range(50)]
        for number, client in enumerate(clients):
            await client.ask(LONG, "demo-chat", stream=True, user=f"user-{number}")
        await demo.log.wait_for(lambda log: len(log.active) == 38)
        assert await status(proxy, http) == {"limit": 38, "auto": True, "in_use": 38, "queued": 12}
        for client in clients:
            await client.disconnect()
        await demo.log.wait_for(lambda log: not log.active)
        assert demo.log.peak_active == 38


async def test_a_full_dify_that_answers_turns_is_busy_and_not_unready() -> None:
    """Its limit is too high, so that no connection is left for the check."""
    async with (
        dify_of(2, dify_max_concurrent=2) as (proxy, _demo),
        httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http,
    ):
        clients = [Client(proxy.port) for _ in range(2)]
        for client in clients:
            await client.ask("SLOW:60x100", "demo-chat", stream=True)
            await client.read_until(b"tick 1")
        ready = await http.get(f"{proxy.origin}/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "busy")
        for client in clients:
            await client.read_until(b"[DONE]")
            await client.disconnect()


async def test_calls_outside_turns_wait_for_a_slot(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited(1)
    name = (await http.post(f"{proxy.url}/conversations", json={})).json()["id"]
    body = {"model": "demo-chat", "input": "hi", "conversation": name}
    assert (await http.post(f"{proxy.url}/responses", json=body)).status_code == 200
    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        before = len(log.requests)
        listed = group.create_task(http.get(f"{proxy.url}/conversations/{name}/items"))
        await queued(proxy, http, 1)
        deleted = group.create_task(http.delete(f"{proxy.url}/conversations/{name}"))
        await queued(proxy, http, 2)
        assert len(log.requests) == before
        await client.disconnect()
    assert [item["content"][0]["text"] for item in listed.result().json()["data"]][-1] == "hi"
    assert deleted.result().json()["deleted"] is True
    assert [(request.method, request.path.split("/")[2]) for request in list(log.requests)[before:]] == [
        ("POST", "chat-messages"),
        ("GET", "messages"),
        ("DELETE", "conversations"),
    ]
    await until_free(proxy, http)


async def test_a_turn_reads_the_messages_of_its_conversation_with_its_own_slot(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    """The app changes, so that the turn needs a transcript of the earlier messages."""
    proxy = limited(1)
    name = (await http.post(f"{proxy.url}/conversations", json={})).json()["id"]
    for model in ("demo-chat", "demo-completion"):
        body = {"model": model, "input": f"a question to {model}", "conversation": name}
        assert (await http.post(f"{proxy.url}/responses", json=body)).status_code == 200
    assert "a question to demo-chat" in log.runs[-1].question
    await until_free(proxy, http)


async def test_the_readiness_check_takes_no_connection_from_turns() -> None:
    async with (
        dify_of(10, dify_max_concurrent=1) as (proxy, demo),
        httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http,
    ):
        await ask(proxy, http, "quick")  # reads the profile of the app
        await demo.log.wait_for(lambda log: not log.connections)
        async with occupied(proxy, demo.log):
            opened = demo.log.connections
            ready = await http.get(f"{proxy.origin}/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "busy")
            assert (opened, demo.log.connections, demo.log.waiting_connections) == (1, 1, 0)
        await demo.log.wait_for(lambda log: not log.connections)
    async with dify_of(10) as (proxy, demo), httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http:
        ready = await http.get(f"{proxy.origin}/ready")
        assert (ready.status_code, ready.json()["status"], demo.log.peak_connections) == (200, "ready", 1)
        assert ready.json()["dify"] == [{"limit": 8, "auto": True, "in_use": 0, "queued": 0}]
