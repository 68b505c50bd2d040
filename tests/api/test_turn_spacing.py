"""Turns of a conversation run one after the other and start in different seconds, however the previous turn ended.

Dify would mix them otherwise: it runs turns concurrently, and orders messages by whole seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.turns.claim_timing import DEFAULT_TIMING
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import CONVERSING
from tests.api.chats import Chat, at_once, messages_of, requests_for, seconds_of_turns, the_request, the_run
from tests.api.conftest import Serve
from tests.api.raw_client import Client
from tests.api.servers import ProxyServer


@pytest.fixture
def demo(clocked_demo: DemoServer) -> DemoServer:
    return clocked_demo


@pytest.fixture
def proxy(spacing_proxy: ProxyServer, log: DemoLog) -> ProxyServer:
    return spacing_proxy


def named(conversation_id: str | None) -> dict[str, Any]:
    return {"extra_body": {"conversation_id": conversation_id}}


async def disconnect_in_mid_answer(proxy: ProxyServer, log: DemoLog, question: str, **more: Any) -> None:
    leaving = Client(proxy.port)
    await leaving.ask(question, "demo-chat", stream=True, **more)
    await log.wait_for(lambda log: any(run.question == question and run.first_event_at for run in log.runs))
    await leaving.disconnect()


def apart(demo: DemoServer, conversation_id: str) -> bool:
    seconds = seconds_of_turns(demo, conversation_id)
    return len(set(seconds)) == len(seconds) > 1


VERSIONS = ("0.15", "1.11", "1.13", "1.14", "1.15", "1.16")
MODELS = [f"{name}@{version}" for version in VERSIONS for name in CONVERSING if name != "demo-agent"] + ["demo-agent"]


async def test_three_turns_of_every_app_form_one_conversation(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    async def converse(model: str, stream: bool) -> None:
        name = f"{model} {stream}"
        chat = Chat(client, model, stream, {"user": name})
        seen = []
        for number in (1, 2, 3):
            earlier, before = messages_of(chat), chat.conversation_id
            await chat.say(f"{number}. {name}")
            request, run = the_request(log, f"{number}. {name}"), the_run(log, f"{number}. {name}")
            assert (request.body["query"], request.body.get("conversation_id")) == (f"{number}. {name}", before)
            assert list(run.history) == earlier
            seen.append((run.user, run.conversation_id, chat.conversation_id))
        assert len(set(seen)) == 1
        seconds = seconds_of_turns(demo, str(chat.conversation_id))
        assert seconds == sorted(set(seconds)), "two turns started in the same second of Dify"
        assert len(seconds) == 3

    await at_once(converse(model, stream) for model in MODELS for stream in (False, True))


async def test_the_second_of_two_turns_waits_for_the_first(client: AsyncOpenAI, demo: DemoServer, log: DemoLog) -> None:
    """So its model sees the first answer, and Dify stores the turns in order."""

    async def converse(model: str) -> None:
        chat = Chat(client, model)
        await chat.say(f"{model}: 1")
        chat.messages.clear()
        first, *others = (chat.copy() for _ in range(3))
        name = named(chat.conversation_id)
        turn = asyncio.create_task(first.say(f"{model}: first SLOW:10x50", **name))
        await log.wait_for(lambda log: requests_for(log, f"{model}: first SLOW:10x50"))
        await at_once(other.say(f"{model}: other {number}", **name) for number, other in enumerate(others))
        await turn
        runs = sorted(
            (run for run in log.runs if run.conversation_id == chat.conversation_id), key=lambda run: run.started_at
        )
        assert [len(run.history) for run in runs] == [0, 2, 4, 6]
        assert runs[2].history[-1][1].strip() == (await turn).strip()
        seconds = seconds_of_turns(demo, str(chat.conversation_id))
        assert seconds == sorted(set(seconds))

    await at_once(converse(model) for model in ("demo-chat", "demo-advanced-chat@1.13", "demo-agent"))


async def test_a_turn_waits_for_a_cancelled_first_turn(
    proxy: ProxyServer, client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    await disconnect_in_mid_answer(proxy, log, "leaves at once SLOW:1000x100")
    conversation = the_run(log, "leaves at once SLOW:1000x100").conversation_id
    await log.wait_for(lambda log: log.stops)
    chat = Chat(client, "demo-chat", more=named(conversation))
    await chat.say("and now")
    assert apart(demo, conversation)
    assert the_run(log, "and now").history[0] == ("user", "leaves at once SLOW:1000x100")
    assert the_run(log, "and now").started_at > (the_run(log, "leaves at once SLOW:1000x100").finished_at or 0)


@pytest.mark.parametrize("question", ["goes wrong MIDERROR", "goes wrong ERROR"])
async def test_a_turn_after_a_failed_turn_is_spaced(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog, question: str
) -> None:
    chat = Chat(client, "demo-chat")
    await chat.say("before it")
    with pytest.raises(openai.APIError):
        await chat.copy().say(question)
    conversation = chat.conversation_id
    assert the_run(log, question).conversation_id == conversation
    await Chat(client, "demo-chat", more=named(conversation)).say("after it")
    assert conversation is not None
    assert apart(demo, conversation)
    assert the_run(log, "after it").history[0] == ("user", "before it")


async def test_a_turn_after_a_stop_sequence_is_spaced(client: AsyncOpenAI, demo: DemoServer, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat")
    await chat.say("to be cut", stop=["demo"])
    assert chat.conversation_id is not None
    for question in ("cut again", "not cut"):
        other = Chat(client, "demo-chat", more=named(chat.conversation_id))
        await other.say(question, **({"stop": ["demo"]} if question == "cut again" else {}))
    assert apart(demo, chat.conversation_id)
    questions = [text for role, text in the_run(log, "not cut").history if role == "user"]
    assert questions == ["to be cut", "cut again"]


async def test_a_named_turn_waits_for_a_turn_found_by_history(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    """The named turn waits. Afterwards the history no longer leads to this conversation."""
    chat = Chat(client, "demo-chat")
    await chat.say("begins")
    conversation = chat.conversation_id
    assert conversation is not None
    late, early = chat.copy(), Chat(client, "demo-chat", more=named(conversation))
    late.messages = list(chat.messages)

    slow = asyncio.create_task(late.say("goes on SLOW:10x150"))
    await log.wait_for(lambda log: any(run.question == "goes on SLOW:10x150" for run in log.runs))
    await early.say("is named")
    await slow
    assert apart(demo, conversation)
    assert [text for role, text in the_run(log, "is named").history if role == "user"] == [
        "begins",
        "goes on SLOW:10x150",
    ]
    await late.say("by its history")
    assert the_run(log, "by its history").conversation_id != conversation


async def test_a_named_turn_waits_for_a_cancelled_named_turn(serve: Serve, log: DemoLog, demo: DemoServer) -> None:
    """A cancelled named turn holds the lock until its run has ended in Dify."""
    proxy = serve(timing=DEFAULT_TIMING)
    async with proxy.client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("first of a named one")
        body = named(chat.conversation_id)["extra_body"]
        await disconnect_in_mid_answer(proxy, log, "second SLOW:1000x100", **body)
        await Chat(client, "demo-chat", more=named(chat.conversation_id)).say("third")
    assert chat.conversation_id is not None
    assert apart(demo, chat.conversation_id)
    assert the_run(log, "third").started_at > (the_run(log, "second SLOW:1000x100").finished_at or 0)
