"""Fifty concurrent end users with equal messages: no conversation mixes two of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.log import LoggedRun
from tests.api.chats import Chat, at_once
from tests.api.servers import ProxyServer

PEOPLE = 50
TURNS = 3


def marker(number: int) -> str:
    return f"<person {number}>"


def markers_in(run: LoggedRun) -> set[str]:
    """Return the markers in the history, question and inputs of a run."""
    text = " ".join([*(text for _, text in run.history), run.question, *map(str, run.inputs.values())])
    return {marker(number) for number in range(PEOPLE) if marker(number) in text}


def by_conversation(log: DemoLog) -> dict[str, list[LoggedRun]]:
    """Return the runs of each conversation, in order of their start."""
    conversations = defaultdict(list)
    for run in sorted(log.runs, key=lambda run: run.started_at):
        conversations[run.conversation_id].append(run)
    return conversations


def check_order(runs: dict[str, list[LoggedRun]]) -> None:
    """Assert that the turns of a conversation never overlap, and that each sees all earlier ones."""
    for turns in runs.values():
        for number, run in enumerate(turns):
            assert len(run.history) == 2 * number
            assert number == 0 or (turns[number - 1].finished_at or 0) <= run.started_at


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["demo-chat", "demo-agent-chat", "demo-advanced-chat@1.13", "demo-agent"])
async def test_end_users_with_their_own_system_prompts_do_not_mix(
    proxy: ProxyServer, log: DemoLog, model: str, stream: bool
) -> None:
    """Only the end user and the system prompt differ: all questions and answers are equal."""
    async with proxy.client() as client:

        async def converse(number: int) -> Chat:
            system = {"role": "system", "content": f"You help {marker(number)}."}
            chat = Chat(client, model, stream, {"user": f"{model} {stream} {number}"}, [system])
            for turn in range(TURNS):
                assert await chat.say(f"{turn} SAY<<yes>>") == "yes"
            return chat

        chats = await asyncio.gather(*(converse(number) for number in range(PEOPLE)))
    runs = by_conversation(log)
    assert set(runs) == {chat.conversation_id for chat in chats}
    assert len(runs) == PEOPLE
    assert len({run.user for run in log.runs}) == PEOPLE
    for number, chat in enumerate(chats):
        turns = runs[str(chat.conversation_id)]
        assert len(turns) == TURNS
        assert len({run.user for run in turns}) == 1
        assert [markers_in(run) for run in turns] == [{marker(number)}] * TURNS
    check_order(runs)


@pytest.mark.parametrize("model", ["demo-chat-topic", "demo-advanced-chat-topic"])
async def test_end_users_with_their_own_inputs_do_not_mix(proxy: ProxyServer, log: DemoLog, model: str) -> None:
    async with proxy.client() as client:

        async def converse(number: int) -> Chat:
            headers = {"X-OpenWebUI-User-Id": f"{model} {number}", "X-OpenWebUI-Chat-Id": "the same"}
            more: dict[str, Any] = {
                "extra_body": {"inputs": {"topic": marker(number)}},
                "extra_headers": headers if number % 2 else {},
                "user": f"{model} {number}",
            }
            chat = Chat(client, model, more=more)
            for turn in range(TURNS):
                assert await chat.say(f"{turn} SAY<<yes>>") == "yes"
            return chat

        chats = await asyncio.gather(*(converse(number) for number in range(PEOPLE)))
    runs = by_conversation(log)
    assert len(runs) == PEOPLE
    for number, chat in enumerate(chats):
        turns = runs[str(chat.conversation_id)]
        assert [markers_in(run) for run in turns] == [{marker(number)}] * TURNS
        assert len({run.user for run in turns}) == 1
    check_order(runs)


async def test_anonymous_people_behind_one_key_do_not_mix(proxy: ProxyServer, log: DemoLog) -> None:
    """All are one end user, and groups of five have equal inputs, system prompts and messages.

    Within a group each conversation is continued once from each point, and the other turns have transcripts.
    """

    async def converse(number: int) -> None:
        person = number % 10
        system = {"role": "system", "content": f"You help {marker(person)}."}
        more = {"extra_body": {"inputs": {"topic": marker(person)}}}
        async with proxy.client() as client:
            chat = Chat(client, "demo-chat-topic", bool(number % 3), more, [system])
            for turn in range(TURNS):
                await chat.say(f"{turn} SAY<<yes>>")

    await at_once(converse(number) for number in range(PEOPLE))
    assert len(log.runs) == PEOPLE * TURNS
    runs = by_conversation(log)
    assert len({run.user for run in log.runs}) == 1
    for turns in runs.values():
        assert len({frozenset(markers_in(run)) for run in turns}) == 1
        assert len(markers_in(turns[0])) == 1
        assert len(turns) <= TURNS
    check_order(runs)
    assert any(len(turns) > 1 for turns in runs.values())


async def test_anonymous_people_with_their_own_messages_never_fork(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client() as client:

        async def converse(number: int) -> None:
            chat = Chat(client, "demo-advanced-chat@1.11", bool(number % 2))
            for turn in range(TURNS):
                await chat.say(f"{turn} of {marker(number)} SAY<<yes>>")

        await at_once(converse(number) for number in range(PEOPLE))
    runs = by_conversation(log)
    assert sorted(len(turns) for turns in runs.values()) == [TURNS] * PEOPLE
    assert all(len(markers_in(run)) == 1 for run in log.runs)
    check_order(runs)


async def test_end_users_with_equal_messages_do_not_mix(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client() as client:

        async def converse(number: int) -> Chat:
            chat = Chat(client, "demo-chat", bool(number % 2), {"user": f"alike {number}"})
            for turn in range(TURNS):
                assert await chat.say(f"{turn} SAY<<yes>>") == "yes"
            return chat

        chats = await asyncio.gather(*(converse(number) for number in range(PEOPLE)))
    runs = by_conversation(log)
    assert {chat.conversation_id for chat in chats} == set(runs)
    assert sorted(len(turns) for turns in runs.values()) == [TURNS] * PEOPLE
    assert all(len({run.user for run in turns}) == 1 for turns in runs.values())
    assert len({run.user for run in log.runs}) == PEOPLE
    check_order(runs)
