"""A conversation that is named while, or right after, a turn in it that nobody is to go on from.

Dify would mix them: it lets two turns run beside each other, and confuses those that begin within one second.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chatting import Chat, seconds_of_turns, the_run
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer
from tests.api.sockets import Client


def named(conversation_id: str | None) -> dict[str, Any]:
    return {"extra_body": {"conversation_id": conversation_id}}


async def leave_in_the_middle(proxy: ProxyServer, log: DemoLog, question: str, **more: Any) -> None:
    leaver = Client(proxy.port)
    await leaver.ask(question, "demo-chat", stream=True, **more)
    await log.wait_for(lambda log: any(run.question == question and run.first_event_at for run in log.runs))
    await leaver.leave()


def apart(demo: DemoServer, conversation_id: str) -> bool:
    seconds = seconds_of_turns(demo, conversation_id)
    return len(set(seconds)) == len(seconds) > 1


async def test_a_first_turn_that_was_cancelled(
    proxy: ProxyServer, client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    await leave_in_the_middle(proxy, log, "leaves at once SLOW:100x50")
    conversation = the_run(log, "leaves at once SLOW:100x50").conversation_id
    await log.wait_for(lambda log: log.stops)
    chat = Chat(client, "demo-chat", more=named(conversation))
    await chat.say("and now")
    assert apart(demo, conversation)
    assert the_run(log, "and now").history[0] == ("user", "leaves at once SLOW:100x50")
    assert the_run(log, "and now").started_at > (the_run(log, "leaves at once SLOW:100x50").finished_at or 0)


@pytest.mark.parametrize("question", ["goes wrong MIDERROR", "goes wrong ERROR"])
async def test_a_turn_that_failed(client: AsyncOpenAI, demo: DemoServer, log: DemoLog, question: str) -> None:
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


async def test_a_turn_that_a_stop_sequence_cut(client: AsyncOpenAI, demo: DemoServer, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat")
    await chat.say("to be cut", stop=["demo"])
    assert chat.conversation_id is not None
    for question in ("cut again", "not cut"):
        other = Chat(client, "demo-chat", more=named(chat.conversation_id))
        await other.say(question, **({"stop": ["demo"]} if question == "cut again" else {}))
    assert apart(demo, chat.conversation_id)
    asked = [text for role, text in the_run(log, "not cut").history if role == "user"]
    assert asked == ["to be cut", "cut again"]


async def test_a_turn_by_history_that_goes_on(client: AsyncOpenAI, demo: DemoServer, log: DemoLog) -> None:
    """The named one waits, and is then the one that every later history goes on from."""
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


async def test_a_named_turn_that_was_cancelled(serve: Serve, log: DemoLog, demo: DemoServer) -> None:
    """A named turn that is cancelled holds the conversation until Dify has ended it."""
    proxy = serve()
    async with proxy.client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("first of a named one")
        body = named(chat.conversation_id)["extra_body"]
        await leave_in_the_middle(proxy, log, "second SLOW:100x50", **body)
        await Chat(client, "demo-chat", more=named(chat.conversation_id)).say("third")
    assert chat.conversation_id is not None
    assert apart(demo, chat.conversation_id)
    assert the_run(log, "third").started_at > (the_run(log, "second SLOW:100x50").finished_at or 0)
