"""Conversations that Dify no longer has. Each version reports that in its own way, or not at all."""

from __future__ import annotations

import itertools
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.chats import Chat, assert_continues, at_once, messages_of, requests_for, the_request, the_run, transcript
from tests.api.conftest import Serve

REPORTING = [
    f"{name}@{version}" for version in ("0.15", "1.11", "1.16") for name in ("demo-chat", "demo-advanced-chat")
] + [
    "demo-chat@1.13",
    "demo-chat@1.14",
    "demo-chat@1.15",
    "demo-agent-chat@1.11",
    "demo-agent-chat@1.13",
    "demo-agent",
]
"""Apps that answer a turn in a lost conversation with 404."""

HANGING = ["demo-advanced-chat@1.13", "demo-advanced-chat@1.14"]
"""Apps that never answer a turn in a lost conversation."""


async def lose(demo: DemoServer, http: httpx2.AsyncClient, chat: Chat) -> None:
    """Delete a chat's conversation in Dify."""
    run = next(run for run in demo.log.runs if run.conversation_id == chat.conversation_id)
    reply = await http.request(
        "DELETE",
        f"{demo.url}/conversations/{chat.conversation_id}",
        headers={"Authorization": f"Bearer app-{chat.model}"},
        json={"user": run.user},
    )
    assert reply.status_code in (200, 204)


SHARED: dict[str, Any] = {"workers": 2}
"""Settings of a proxy that shares the file of the state with other processes, and so answers nothing from memory."""


def age(state: Path, seconds: float) -> None:
    """Move the last turns of all conversations in a shared state into the past."""
    connection = sqlite3.connect(state)
    with connection:
        rows = connection.execute("SELECT key, data FROM entries").fetchall()
        for key, value in rows:
            if key.startswith(("conversation:", "owned:")):
                name, at, *others = msgspec.msgpack.decode(value)
                aged = msgspec.msgpack.encode([name, at - seconds, *others])
                connection.execute("UPDATE entries SET data = ? WHERE key = ?", (aged, key))
    connection.close()


def confirmations(log: DemoLog) -> list[str]:
    """Return the ids of the conversations whose existence the proxy checked before a turn."""
    return [request.query["conversation_id"] for request in log.requests if request.path == "/v1/messages"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lost_conversation_is_replaced_transparently(
    client: AsyncOpenAI, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    """The new conversation starts with a transcript, and later turns continue it."""

    async def converse(model: str) -> None:
        name = f"{model} {stream}"
        chat = Chat(client, model, stream)
        for number in (1, 2):
            await chat.say(f"{name}: {number} SAY<<yes {number}>>")
        lost = chat.conversation_id
        await lose(demo, http, chat)
        await chat.say(f"{name}: 3")
        refused, again = requests_for(log, f"{name}: 3")
        assert (refused.body["query"], refused.body["conversation_id"]) == (f"{name}: 3", lost)
        assert "conversation_id" not in again.body
        assert again.body["query"] == transcript(*messages_of(chat)[:4], question=f"{name}: 3")
        assert chat.conversation_id == the_run(log, f"{name}: 3").conversation_id != lost
        await chat.say(f"{name}: 4")
        assert_continues(log, f"{name}: 4", chat.conversation_id, ("user", again.body["query"]), messages_of(chat)[5])

    await at_once(converse(model) for model in REPORTING)
    assert not confirmations(log)


async def test_a_failure_in_the_replacement_is_an_error(
    client: AsyncOpenAI, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    chat = Chat(client, "demo-chat@1.11")
    await chat.say("fails anew 1")
    await lose(demo, http, chat)
    with pytest.raises(openai.InternalServerError):
        await chat.say("fails anew 2 ERROR")
    assert len(requests_for(log, "fails anew 2 ERROR")) == 2


@pytest.mark.parametrize("model", HANGING)
async def test_a_conversation_that_could_hang_is_checked_after_a_long_pause(
    serve: Serve, http: httpx2.AsyncClient, tmp_path: Path, model: str
) -> None:
    state = tmp_path / "state.db"
    with DemoServer(clock=itertools.count(1_700_000_000).__next__) as dify:
        proxy = serve(dify_api_url=dify.url, state_url=f"sqlite:///{state}", silence_timeout=30, **SHARED)
        async with proxy.client(max_retries=0) as client:
            lost, intact = Chat(client, model), Chat(client, model, stream=True)
            await lost.say("lost 1")
            await intact.say("intact 1")
            before, name = lost.conversation_id, intact.conversation_id
            await lose(dify, http, lost)
            age(state, 601)
            await lost.say("lost 2")
            await intact.say("intact 2")
            assert confirmations(dify.log) == [before, name]
            (request,) = requests_for(dify.log, "lost 2")
            assert "conversation_id" not in request.body
            assert request.body["query"] == transcript(*messages_of(lost)[:2], question="lost 2")
            assert_continues(dify.log, "intact 2", name, *messages_of(intact)[:2])
            await at_once([lost.say("lost 3"), intact.say("intact 3")])
            assert len(confirmations(dify.log)) == 2
            assert_continues(
                dify.log, "lost 3", lost.conversation_id, ("user", request.body["query"]), messages_of(lost)[3]
            )


@pytest.mark.parametrize("model", HANGING)
async def test_silence_is_an_error_and_does_not_start_a_conversation(
    serve: Serve, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, model: str
) -> None:
    """The turn may be queued. The client's next try has a transcript."""
    async with serve(silence_timeout=3).client(max_retries=0) as client:
        chat = Chat(client, model)
        await chat.say("silent 1 SAY<<yes>>")
        await lose(demo, http, chat)
        with pytest.raises(openai.APIStatusError) as failed:
            await chat.copy().say("silent 2")
        assert (failed.value.status_code, failed.value.code) == (504, "upstream_timeout")
        assert len(requests_for(log, "silent 2")) == 1
        await chat.say("silent 2 again")
    (request,) = requests_for(log, "silent 2 again")
    assert request.body["query"] == transcript(*messages_of(chat)[:2], question="silent 2 again")
    assert not confirmations(log)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_in_an_unexpected_conversation_is_detected_and_stopped(
    client: AsyncOpenAI, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    """A chatflow of 1.15 answers in a new conversation, without the history. Dify never has two turns."""
    chat = Chat(client, "demo-advanced-chat@1.15", stream)
    question = f"stray {stream} SLOW:40x100"
    await chat.say("stray 1")
    lost = chat.conversation_id
    await lose(demo, http, chat)
    reply = await chat.say(question)
    assert reply == "".join(f"tick {number} " for number in range(1, 41))
    await log.wait_for(lambda log: all(run.state != "running" for run in log.runs))
    _, stray, run = log.runs
    assert (stray.state, stray.question) == ("stopped", question)
    assert log.peak_active == 1
    assert [stop.task_id for stop in log.stops] == [stray.task_id]
    assert run.question == transcript(*messages_of(chat)[:2], question=question)
    assert [request.body.get("conversation_id") for request in requests_for(log, question)] == [lost, None]
    assert chat.conversation_id == run.conversation_id != stray.conversation_id
    await chat.say("stray 3")
    assert_continues(log, "stray 3", run.conversation_id, ("user", run.question), ("assistant", reply))


async def test_a_conversation_whose_loss_is_not_reported_is_checked_after_a_long_pause(
    serve: Serve, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    async with serve(state_url=f"sqlite:///{state}", **SHARED).client() as client:
        chat = Chat(client, "demo-advanced-chat@1.15")
        await chat.say("hidden 1 SAY<<yes>>")
        await lose(demo, http, chat)
        age(state, 601)
        await chat.say("hidden 2")
    assert [request.body.get("conversation_id") for request in turns(log)] == [None, None]
    assert the_request(log, "hidden 2").body["query"] == transcript(*messages_of(chat)[:2], question="hidden 2")


# Conversations that the client names


def named(conversation_id: str | None) -> dict[str, Any]:
    return {"extra_body": {"conversation_id": conversation_id}}


@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat@1.11", "demo-advanced-chat@1.15", "demo-agent"])
async def test_a_lost_named_conversation_is_replaced_if_the_client_sends_the_history(
    client: AsyncOpenAI, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, model: str
) -> None:
    chat = Chat(client, model)
    await chat.say(f"named {model} 1 SAY<<yes>>")
    lost = chat.conversation_id
    await lose(demo, http, chat)
    await chat.say(f"named {model} 2", **named(lost))
    assert the_run(log, "yes>>", "").conversation_id == lost
    again = requests_for(log, f"named {model} 2")[-1]
    assert "conversation_id" not in again.body
    assert again.body["query"] == transcript(*messages_of(chat)[:2], question=f"named {model} 2")
    assert chat.conversation_id != lost


@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat@1.11", "demo-advanced-chat@1.15", "demo-agent"])
async def test_a_lost_named_conversation_is_a_404_without_a_history(
    client: AsyncOpenAI, demo: DemoServer, http: httpx2.AsyncClient, log: DemoLog, model: str
) -> None:
    chat = Chat(client, model)
    await chat.say("named 1 SAY<<yes>>")
    lost = chat.conversation_id
    await lose(demo, http, chat)
    chat.messages.clear()
    with pytest.raises(openai.NotFoundError) as refused:
        await chat.say("named 2", **named(lost))
    assert refused.value.code == "conversation_not_found"
    await log.wait_for(lambda log: all(run.state != "running" for run in log.runs))


@pytest.mark.parametrize("model", ["demo-chat", *HANGING, "demo-advanced-chat@1.15", "demo-advanced-chat@1.16"])
async def test_an_unknown_named_conversation_is_a_404_even_with_a_history(
    client: AsyncOpenAI, log: DemoLog, model: str
) -> None:
    """Otherwise a client could find out which conversations exist. Apps that would hang are checked first."""
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat = Chat(client, model, messages=history)
    with pytest.raises(openai.NotFoundError) as refused:
        await chat.say("never given", **named(str(uuid.uuid4())))
    assert refused.value.code == "conversation_not_found"
    assert not log.runs
