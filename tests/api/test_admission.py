"""Turns wait for a slot of their Dify, over real sockets."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import chat_body, chunks_of
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.servers import demo_apps
from tests.api.slots import LONG, MEMORY, ask, occupied, questions, queued, status, until_free

RECORDED = Path(__file__).parents[1] / "clients" / "recorded"


async def test_turns_beyond_the_limit_wait_whatever_their_app(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    proxy = limited(2)
    async with occupied(proxy, log, 2) as clients:
        whole = asyncio.create_task(ask(proxy, http, "whole", model="demo-completion"))
        await queued(proxy, http, 1)
        streamed = asyncio.create_task(ask(proxy, http, "streamed", model="demo-workflow", stream=True))
        await queued(proxy, http, 2)
        assert await status(proxy, http) == {"limit": 2, "auto": False, "in_use": 2, "queued": 2}
        assert len(log.runs) == 2
        await clients[0].disconnect()
        answers = await asyncio.gather(whole, streamed)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["x-queue-position"] == "1"
    assert answers[1].headers["x-queue-position"] == "2"
    assert chunks_of(answers[1].text)
    await until_free(proxy, http)


async def test_an_invalid_request_does_not_wait(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited(1)
    async with occupied(proxy, log):
        refused = await ask(proxy, http, "hi", model="demo-workflow-form", inputs={"language": None, "words": 3})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "inputs.language")
        assert len(log.runs) == 1


async def test_a_turn_that_need_not_wait_has_no_position(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """Nor has one that only waits for its process's first lease."""
    for state in (MEMORY, SecretStr(f"sqlite:///{tmp_path}/state.db")):
        answer = await ask(limited(1, state_url=state), http, "hi")
        assert answer.status_code == 200
        assert "x-queue-position" not in answer.headers


async def test_off_has_no_limit(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited("off")
    async with occupied(proxy, log, 12):
        assert len(log.runs) == 12
        assert (await http.get(f"{proxy.origin}/ready")).json()["dify"] == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_the_queue_costs_nothing(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, stream: bool
) -> None:
    proxy = limited(1)
    async with occupied(proxy, log):
        client = Client(proxy.port)
        await client.ask("abandoned", "demo-chat", stream=stream)
        await queued(proxy, http, 1)
        await client.disconnect()
        await queued(proxy, http, 0)
    assert (await ask(proxy, http, "next")).status_code == 200
    assert questions(log) == [LONG, "next"]


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
async def test_a_whole_answer_waits_for_a_limited_time(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, path: str
) -> None:
    proxy = limited(1, queue_timeout=0.2)
    body = chat_body("late") if path == "/chat/completions" else {"model": "demo-chat", "input": "late"}
    async with occupied(proxy, log):
        answer = await http.post(proxy.url + path, json=body)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "queue_timeout"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "x-should-retry" not in answer.headers
        assert (await status(proxy, http))["queued"] == 0
    assert questions(log) == [LONG]


async def test_a_full_queue_is_a_429_and_its_retry_after_proves_true(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    """The queue stays full meanwhile: the clients that were told to wait get in nevertheless."""
    proxy = limited(1, max_queued_turns=1)
    await ask(proxy, http, "quick")  # shows how long turns take
    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        waiting = group.create_task(ask(proxy, http, "waiting"))
        await queued(proxy, http, 1)
        rejected = [await ask(proxy, http, "rejected", user=f"user-{number}") for number in range(2)]
        for answer in rejected:
            assert answer.status_code == 429
            seconds = answer.headers["retry-after"]
            assert answer.json()["error"] == {
                "message": f"The queue for Dify is full (1 waiting). Send the request again in {seconds} s.",
                "type": "rate_limit_error",
                "param": None,
                "code": "queue_full",
            }
        assert (await ask(proxy, http, "too early", user="user-0")).status_code == 429
        await asyncio.sleep(int(rejected[0].headers["retry-after"]))
        again = group.create_task(ask(proxy, http, "again", user="user-0"))
        await queued(proxy, http, 2)
        await client.disconnect()
    assert (waiting.result().status_code, again.result().status_code) == (200, 200)


async def test_callers_take_turns(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    """Twenty clients of one key and one of another: the one waits for at most one turn of the others."""
    proxy = limited(1, api_keys=(SecretStr("many"), SecretStr("one")))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:

        async def block() -> None:
            body, key = chat_body(LONG, stream=True), {"authorization": "Bearer many"}
            async with http.stream("POST", f"{proxy.url}/chat/completions", json=body, headers=key) as answer:
                assert answer.status_code == 200
                await stop.wait()

        group.create_task(block())
        await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
        for number in range(20):
            headers = {"authorization": "Bearer many"}
            group.create_task(ask(proxy, http, f"many {number}", headers=headers, user=f"user-{number}"))
        await queued(proxy, http, 20)
        group.create_task(ask(proxy, http, "one", headers={"authorization": "Bearer one"}))
        await queued(proxy, http, 21)
        stop.set()
    assert len(log.runs) == 22
    assert questions(log).index("one") <= 2


async def test_end_users_take_turns(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited(1)
    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(ask(proxy, http, f"anna {number}", user="anna"))
            await queued(proxy, http, number + 1)
        group.create_task(ask(proxy, http, "bert", user="bert"))
        await queued(proxy, http, 6)
        await client.disconnect()
    assert questions(log) == [LONG, "anna 0", "bert", *(f"anna {number}" for number in range(1, 5))]


async def test_interactive_turns_come_before_background_ones(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """Background responses wait behind chats, and so do side calls; one in four is served all the same."""
    proxy = limited(1)
    title = json.loads((RECORDED / "open-webui" / "title.json").read_text())["body"]
    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        background = {"model": "demo-chat", "input": "background", "background": True}
        group.create_task(http.post(f"{proxy.url}/responses", json=background))
        await queued(proxy, http, 1)
        group.create_task(http.post(f"{proxy.url}/chat/completions", json={**title, "model": "demo-chat"}))
        await queued(proxy, http, 2)
        for number in range(5):
            group.create_task(ask(proxy, http, f"chat {number}"))
            await queued(proxy, http, number + 3)
        await client.disconnect()
    await log.wait_for(lambda log: len(log.runs) == 8 and all(run.state != "running" for run in log.runs))
    assert questions(log)[1:7] == ["chat 0", "chat 1", "chat 2", "background", "chat 3", "chat 4"]


async def test_a_queued_turn_holds_neither_lock_nor_claim(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    proxy = limited(1, state_url=SecretStr(f"sqlite:///{state}"))
    first = await ask(proxy, http, "SAY<<one>>")
    named: dict[str, Any] = {"conversation_id": first.headers["x-dify-conversation-id"]}
    created = (await http.post(f"{proxy.url}/conversations", json={})).json()["id"]

    def keys() -> list[str]:
        with sqlite3.connect(state) as connection:
            found = [str(key) for (key,) in connection.execute("SELECT key FROM entries")]
        connection.close()
        return sorted(key for key in found if not key.startswith(("slot:", "ready")))

    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        before = keys()
        tasks = [
            group.create_task(ask(proxy, http, "named", **named)),
            group.create_task(
                http.post(
                    f"{proxy.url}/chat/completions",
                    json={
                        "model": "demo-chat",
                        "messages": [
                            {"role": "user", "content": "SAY<<one>>"},
                            {"role": "assistant", "content": "one"},
                            {"role": "user", "content": "by history"},
                        ],
                    },
                )
            ),
            group.create_task(
                http.post(
                    f"{proxy.url}/responses",
                    json={"model": "demo-chat", "input": "in a conversation", "conversation": created},
                )
            ),
        ]
        await queued(proxy, http, 3)
        assert keys() == before
        await client.disconnect()
    assert [task.result().status_code for task in tasks] == [200, 200, 200]


ENDS = ["hi", "ERROR", "MIDERROR", "CUT", "EOF", "GARBAGE", "PAUSE", "EMPTY"]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_end_frees_the_slot(limited: Serve, log: DemoLog, http: httpx2.AsyncClient, stream: bool) -> None:
    proxy = limited(1)
    for text in ENDS:
        await ask(proxy, http, text, stream=stream)
    assert (await ask(proxy, http, LONG, stop="tick 2")).status_code == 200  # stopped in Dify by the proxy
    client = Client(proxy.port)
    await client.ask(LONG, "demo-chat", stream=stream)
    await log.wait_for(lambda log: len(log.runs) == len(questions(log)) and log.runs[-1].first_event_at)
    await client.disconnect()
    assert (await ask(proxy, http, "last")).status_code == 200
    await until_free(proxy, http)


async def test_a_refused_connection_frees_the_slot(limited: Serve, http: httpx2.AsyncClient) -> None:
    with DemoServer() as gone:
        proxy = limited(1, dify_api_url=gone.url, apps=demo_apps(gone.url))
        assert (await ask(proxy, http, "hi")).status_code == 200
    for _ in range(3):
        assert (await ask(proxy, http, "hi")).status_code == 503
    ready = await http.get(f"{proxy.origin}/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
