"""Background responses that wait for a slot: stored as queued, and returned at once."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import Json, error_of
from tests.api.conftest import Serve
from tests.api.response_requests import get
from tests.api.servers import ProxyServer
from tests.api.slots import ask, occupied, questions, queued, status, until_free
from tests.api.test_background_responses import events_after, process, stream_until
from tests.limits import PATIENCE


def sqlite_state(directory: Path) -> SecretStr:
    return SecretStr(f"sqlite:///{directory}/state.db")


async def create(proxy: ProxyServer, http: httpx2.AsyncClient, text: str, **more: Any) -> httpx2.Response:
    body = {"model": "demo-chat", "input": text, "background": True, **more}
    return await http.post(f"{proxy.url}/responses", json=body)


async def start(proxy: ProxyServer, http: httpx2.AsyncClient, text: str, **more: Any) -> str:
    """Create a response that has no slot yet, and return its id."""
    reply = await create(proxy, http, text, **more)
    assert (reply.status_code, reply.json()["status"]) == (200, "queued")
    return str(reply.json()["id"])


async def ended(proxy: ProxyServer, http: httpx2.AsyncClient, name: str) -> Json:
    """Poll a response until it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            response = await get(http, proxy, f"/responses/{name}")
            if response["status"] not in ("queued", "in_progress"):
                return response


def stored_responses(directory: Path) -> list[str]:
    """Return the keys of all entries of responses in the state."""
    with closing(sqlite3.connect(directory / "state.db")) as database:
        keys = [str(key) for (key,) in database.execute("SELECT key FROM entries")]
    return [key for key in keys if key.partition(":")[0] in {"resp", "progress", "stream"}]


async def test_a_response_is_returned_and_followed_while_it_is_queued(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    proxy = limited(1)
    async with occupied(proxy, log) as (client,):
        name = await start(proxy, http, "SAY<<done>>")
        await queued(proxy, http, 1)
        assert (await get(http, proxy, f"/responses/{name}"))["status"] == "queued"
        async with http.stream("GET", f"{proxy.url}/responses/{name}", params={"stream": "true"}) as reply:
            lines = (line async for line in reply.aiter_lines() if line.startswith("event: "))
            assert [await anext(lines), await anext(lines)] == ["event: response.created", "event: response.queued"]
            assert len(log.runs) == 1
            await client.disconnect()
            assert [line async for line in lines][-1] == "event: response.completed"
    response = await ended(proxy, http, name)
    assert response["output"][0]["content"][0]["text"].strip() == "done"
    await until_free(proxy, http)


async def test_a_response_that_gets_no_slot_in_time_fails(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    proxy = limited(1, silence_timeout=0.3)
    async with occupied(proxy, log):
        name = await start(proxy, http, "never asked")
        response = await ended(proxy, http, name)
        assert response["status"] == "failed"
        assert response["error"]["code"] == "server_error"
        assert response["error"]["message"].startswith("Dify was busy with other requests for 0.3 s.")
        events = await events_after(http, proxy, name)
        assert [event["type"] for event in events] == [
            "response.created",
            "response.queued",
            "error",
            "response.failed",
        ]
        assert events[2]["error"]["code"] == "queue_timeout"
        assert events[3]["response"] == response
        assert (await status(proxy, http))["queued"] == 0
    assert "never asked" not in questions(log)


@pytest.mark.parametrize("where", ["here", "at another replica"])
async def test_a_queued_response_is_cancelled(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path, where: str
) -> None:
    one, two = (limited(1, state_url=sqlite_state(tmp_path)) for _ in range(2))
    async with occupied(one, log):
        name = await start(one, http, "never asked")
        await queued(one, http, 1)
        reply = await http.post(f"{(one if where == 'here' else two).url}/responses/{name}/cancel", timeout=PATIENCE)
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
        await queued(one, http, 0)
        events = await events_after(http, two, name)
        assert [event["type"] for event in events] == ["response.created", "response.queued", "response.incomplete"]
        assert events[-1]["response"] == await get(http, one, f"/responses/{name}") == reply.json()
    assert "never asked" not in questions(log)


async def test_a_queued_response_is_deleted(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    proxy = limited(1, state_url=sqlite_state(tmp_path))
    async with occupied(proxy, log):
        name = await start(proxy, http, "never asked")
        assert (await http.delete(f"{proxy.url}/responses/{name}")).json()["deleted"] is True
        await queued(proxy, http, 0)
        assert (await http.get(f"{proxy.url}/responses/{name}")).status_code == 404
        assert not stored_responses(tmp_path)
    assert "never asked" not in questions(log)


INVALID: list[tuple[Json, int, str | None, str | None]] = [
    ({"model": "nobody"}, 404, "model", "model_not_found"),
    ({"conversation_id": "no-uuid"}, 400, "conversation_id", None),
    ({"previous_response_id": "resp_unknown"}, 400, "previous_response_id", "previous_response_not_found"),
    ({"conversation": "conv_unknown"}, 404, "conversation", "conversation_not_found"),
    (
        {"model": "demo-workflow-form", "inputs": {"language": None, "words": 3}},
        400,
        "inputs.language",
        "missing_required_parameter",
    ),
    ({"store": False}, 400, "background", None),
]
"""Fields of a request, and the status, ``param`` and ``code`` of its error."""


async def test_an_invalid_request_is_rejected_before_it_is_stored(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    proxy = limited(1, state_url=sqlite_state(tmp_path))
    async with occupied(proxy, log):
        for more, *expected in INVALID:
            reply = await create(proxy, http, "zanzibar", **more)
            error = error_of(reply)
            assert [reply.status_code, error["param"], error["code"]] == expected
        assert (await status(proxy, http))["queued"] == 0
        assert not stored_responses(tmp_path)
    assert len(log.runs) == 1


async def test_a_response_that_finds_the_queue_full_is_not_stored(
    limited: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """The place that its ``Retry-After`` promises is for a background response too."""
    proxy = limited(1, max_queued_turns=1, state_url=sqlite_state(tmp_path))
    await ask(proxy, http, "quick")  # shows how long turns take
    async with occupied(proxy, log) as (client,), asyncio.TaskGroup() as group:
        group.create_task(ask(proxy, http, "waiting"))
        await queued(proxy, http, 1)
        reply = await create(proxy, http, "rejected", user="anna")
        assert (reply.status_code, error_of(reply)["code"]) == (429, "queue_full")
        assert not stored_responses(tmp_path)
        await asyncio.sleep(int(reply.headers["retry-after"]))
        name = await start(proxy, http, "again", user="anna")
        await queued(proxy, http, 2)
        await client.disconnect()
    assert (await ended(proxy, http, name))["status"] == "completed"


async def test_a_failure_before_the_request_to_dify_is_the_error_of_the_response(
    limited: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """Dify's conversation is unknown, which shows only when the turn begins."""
    proxy = limited(1)
    reply = await create(
        proxy, http, "hi", model="demo-advanced-chat@1.13", conversation_id="00000000-0000-4000-8000-000000000000"
    )
    assert reply.status_code == 200
    response = await ended(proxy, http, reply.json()["id"])
    assert response["status"] == "failed"
    events = await events_after(http, proxy, response["id"])
    assert next(event["error"]["code"] for event in events if event["type"] == "error") == "conversation_not_found"
    await until_free(proxy, http)


async def test_a_response_waits_for_its_conversation_without_a_slot(
    limited: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    proxy = limited(1)
    conversation = (await http.post(f"{proxy.url}/conversations", json={})).json()["id"]
    first = await create(proxy, http, "SLOW:20x50", conversation=conversation)
    second = await create(proxy, http, "RECALL", conversation=conversation)
    third = await create(proxy, http, "other")
    for reply in (first, second, third):
        assert (await ended(proxy, http, reply.json()["id"]))["status"] == "completed"
    assert len({run.conversation_id for run in log.runs}) == 2


async def test_a_server_that_shuts_down_fails_queued_responses(
    limited: Serve, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    """No slot becomes free within the grace period."""
    state = f"sqlite:///{tmp_path}/state.db"
    with process(tmp_path / "ended", demo, state, SHUTDOWN_GRACE="0", DIFY_MAX_CONCURRENT="1") as (ending, port):
        running, _ = await stream_until(port, "SLOW:1000x100", "tick 1")
        reply = await http.post(
            f"http://127.0.0.1:{port}/v1/responses",
            json={"model": "demo-chat", "input": "never asked", "background": True},
        )
        assert reply.json()["status"] == "queued"
        await running.disconnect()
        assert await asyncio.to_thread(ending.end, signal.SIGTERM) == 0
    proxy = limited(1, state_url=SecretStr(state))
    response = await get(http, proxy, f"/responses/{reply.json()['id']}")
    assert response["status"] == "failed"
    assert "shut down" in response["error"]["message"]
    events = await events_after(http, proxy, response["id"])
    assert [event["type"] for event in events] == ["response.created", "response.queued", "error", "response.failed"]
    assert "never asked" not in questions(log)
