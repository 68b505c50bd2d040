"""Histories that do not match a Dify conversation's latest turn start a new one and leave the old one unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs

from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.chats import (
    Chat,
    Message,
    assert_continues,
    at_once,
    messages_of,
    requests_for,
    the_request,
    the_run,
    transcript,
)
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import Clock, ProxyServer, counted_seconds, demo_apps, serving

MODELS = [
    f"{name}@{version}"
    for version in ("0.15", "1.11", "1.13", "1.16")
    for name in ("demo-chat", "demo-agent-chat", "demo-advanced-chat")
] + ["demo-agent"]


async def two_turns(client: AsyncOpenAI, name: str, model: str = "demo-chat", **more: Any) -> Chat:
    """Return a chat after two turns."""
    chat = Chat(client, model, more=more)
    for number in (1, 2):
        await chat.say(f"{name}: question {number} SAY<<{name}: answer {number}>>")
    return chat


def assert_starts_with_transcript(log: DemoLog, question: str, chat: Chat) -> None:
    """Assert that the turn started a conversation with a transcript of the chat's earlier messages."""
    request = the_request(log, question)
    assert "conversation_id" not in request.body
    assert request.body["query"] == transcript(*messages_of(chat)[:-2], question=question)


# Changed histories


def edit_a_question(messages: list[Message]) -> None:
    messages[0]["content"] = "another question 1"


def edit_a_reply(messages: list[Message]) -> None:
    messages[1]["content"] = "another answer 1"


def cut_a_reply(messages: list[Message]) -> None:
    messages[3]["content"] = messages[3]["content"][:-3]


def drop_a_turn(messages: list[Message]) -> None:
    del messages[:2]


def repeat_a_turn(messages: list[Message]) -> None:
    messages += [dict(message) for message in messages[:2]]


def swap_roles(messages: list[Message]) -> None:
    for message in messages:
        message["role"] = {"user": "assistant", "assistant": "user"}[message["role"]]
    messages += [{"role": "assistant", "content": "well"}]


def prepend_a_turn(messages: list[Message]) -> None:
    messages[:0] = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "all"}]


@pytest.mark.parametrize(
    "change", [edit_a_question, edit_a_reply, cut_a_reply, drop_a_turn, repeat_a_turn, swap_roles, prepend_a_turn]
)
async def test_a_changed_history_starts_another_conversation(
    client: AsyncOpenAI, log: DemoLog, change: Callable[[list[Message]], None]
) -> None:
    name = change.__name__
    chat = await two_turns(client, name)
    other = chat.copy()
    change(other.messages)
    await other.say(f"{name} changed")
    assert_starts_with_transcript(log, f"{name} changed", other)
    await at_once([chat.say(f"{name} unchanged"), other.say(f"{name} on")])
    assert_continues(log, f"{name} unchanged", chat.conversation_id, *messages_of(chat)[:4])
    assert_continues(log, f"{name} on", other.conversation_id, *initial_history(log, f"{name} changed", other))
    assert chat.conversation_id != other.conversation_id


def initial_history(log: DemoLog, question: str, chat: Chat) -> list[tuple[str, str]]:
    """Return the history in Dify after the first turn: the query with its transcript, and the answer."""
    run = the_run(log, question)
    return [("user", run.question), ("assistant", run.answer)]


@pytest.mark.parametrize("stream", [False, True])
async def test_regenerated_answers_and_edited_questions_are_branches(
    client: AsyncOpenAI, log: DemoLog, stream: bool
) -> None:
    """The first continuation of a message stays in its Dify conversation; each other one starts a branch."""

    async def converse(model: str) -> None:
        name = f"{model} {stream}"
        first = Chat(client, model, stream)
        await first.say(f"{name}: one")
        again, branch = first.copy(), first.copy()
        await first.say(f"{name}: two")
        await again.say(f"{name}: two")
        await branch.say(f"{name}: other two")
        assert [request.body.get("conversation_id") for request in requests_for(log, f"{name}: two")] == [
            first.conversation_id,
            None,
        ]
        assert_starts_with_transcript(log, f"{name}: other two", branch)
        chats = [first, again, branch]
        assert len({chat.conversation_id for chat in chats}) == 3
        before = [(chat.conversation_id, messages_of(chat)) for chat in chats]
        await at_once(chat.say(f"{name}: three of {number}") for number, chat in enumerate(chats))
        for number, (conversation_id, messages) in enumerate(before):
            run = the_run(log, f"{name}: three of {number}")
            assert run.conversation_id == conversation_id
            assert run.question == f"{name}: three of {number}"
            assert run.history[-1] == messages[-1]
        assert list(the_run(log, f"{name}: three of 0").history) == before[0][1]

    await at_once(converse(model) for model in MODELS)


async def test_repeating_the_first_question_starts_another_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat")
    await chat.say("first again")
    again = chat.copy(messages=1)
    await again.answer()
    assert [request.body.get("conversation_id") for request in requests_for(log, "first again")] == [None, None]


async def test_one_of_many_simultaneous_continuations_stays_in_the_conversation(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    chat = await two_turns(client, "many")
    copies = [chat.copy() for _ in range(8)]
    await at_once(copy.say(f"at once {number}") for number, copy in enumerate(copies))
    sent = [the_request(log, f"at once {number}").body for number in range(8)]
    assert sorted(body.get("conversation_id", "") for body in sent) == [""] * 7 + [chat.conversation_id]
    assert len({copy.conversation_id for copy in copies}) == 8
    assert all(
        body["query"] == transcript(*messages_of(chat), question=f"at once {number}") or "conversation_id" in body
        for number, body in enumerate(sent)
    )


async def test_a_second_question_during_the_first_answer_forks(client: AsyncOpenAI, log: DemoLog) -> None:
    """The second question is sent from the same point while the first is being answered."""
    chat = await two_turns(client, "clicks")
    other = chat.copy()
    first = asyncio.create_task(chat.say("click 1 SLOW:10x100"))
    await log.wait_for(lambda log: requests_for(log, "click 1 SLOW:10x100"))
    await other.say("click 2")
    assert_starts_with_transcript(log, "click 2", other)
    await first
    await chat.say("after click 1")
    assert [text for role, text in the_run(log, "after click 1").history if role == "user"][2:] == [
        "click 1 SLOW:10x100"
    ]


# System prompts, inputs and apps


async def test_a_changed_system_prompt_starts_a_new_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat", messages=[{"role": "system", "content": "You are kind."}])
    await chat.say("system 1")
    await chat.say("system 2")
    chat.messages[0]["content"] = "You are rude."
    old = chat.copy()
    old.messages[0]["content"] = "You are kind."
    await at_once([chat.say("system 3"), old.say("system 4")])
    queries = {end: the_request(log, f"system {end}").body for end in (1, 2, 3, 4)}
    assert queries[1]["query"] == "You are kind.\n\nsystem 1"
    assert queries[2]["query"] == "system 2"
    assert queries[3]["query"] == "You are rude.\n\n" + transcript(*messages_of(chat)[1:5], question="system 3")
    assert "conversation_id" not in queries[3]
    assert queries[4]["query"] == "system 4"
    assert queries[4]["conversation_id"] == queries[2]["conversation_id"]


async def test_a_changed_system_prompt_in_an_input_starts_a_new_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    more = {"extra_body": {"inputs": {"topic": "tea"}}}
    chat = Chat(client, "demo-chat-topic", more=more, messages=[{"role": "system", "content": "You are kind."}])
    for number in (1, 2):
        await chat.say(f"input {number}")
    chat.messages[0]["content"] = "You are rude."
    await chat.say("input 3")
    sent = [(request.body["inputs"]["system_prompt"], "conversation_id" in request.body) for request in turns(log)]
    assert sent == [("You are kind.", False), ("You are kind.", True), ("You are rude.", False)]


async def test_changed_inputs_fork_unnamed_conversations(client: AsyncOpenAI, log: DemoLog) -> None:
    """A conversation found by its history forks. A named one continues, and Dify renders the new inputs in it."""

    async def converse(model: str) -> None:
        chat = Chat(client, model)

        def topic(name: str, **more: Any) -> dict[str, Any]:
            return {"extra_body": {"inputs": {"topic": name}, **more}}

        await chat.say(f"{model} 1", **topic("tea"))
        await chat.say(f"{model} 2", **topic("tea"))
        tea = chat.conversation_id
        other = chat.copy()
        await other.say(f"{model} 3", **topic("coffee"))
        await chat.say(f"{model} 4", **topic("milk", conversation_id=tea))
        sent = {end: the_request(log, f"{model} {end}").body for end in (1, 2, 3, 4)}
        assert [sent[end].get("conversation_id") for end in (1, 2, 3, 4)] == [None, tea, None, tea]
        assert [sent[end]["inputs"]["topic"] for end in (1, 2, 3, 4)] == ["tea", "tea", "coffee", "milk"]
        assert "topic = milk" in chat.messages[-1]["content"]

    await at_once(
        converse(f"{name}@{version}")
        for name in ("demo-chat-topic", "demo-advanced-chat-topic")
        for version in ("1.11", "1.13", "1.16")
    )


async def test_inputs_that_the_app_lacks_are_ignored(client: AsyncOpenAI, log: DemoLog) -> None:
    """They never reach Dify. Open WebUI and others put arbitrary values into metadata."""
    chat = Chat(client, "demo-chat")
    await chat.say("metadata 1", metadata={"request": "1"})
    await chat.say("metadata 2", metadata={"request": "2"})
    assert the_request(log, "metadata 2").body["conversation_id"] == chat.conversation_id


@pytest.mark.parametrize("other", ["demo-chat@1.11", "demo-advanced-chat"])
async def test_another_app_starts_its_own_conversation(client: AsyncOpenAI, log: DemoLog, other: str) -> None:
    chat = await two_turns(client, f"moving to {other}")
    moved = chat.copy()
    moved.model = other
    await moved.say(f"moved to {other}")
    assert_starts_with_transcript(log, f"moved to {other}", moved)
    await chat.say(f"stayed beside {other}")
    assert_continues(log, f"stayed beside {other}", chat.conversation_id, *messages_of(chat)[:4])


# Failed and cancelled turns


async def fail(chat: Chat, question: str) -> None:
    """Send a question whose turn fails, and remove it from the chat."""
    with pytest.raises(openai.APIError):
        await chat.say(question)
    del chat.messages[-1]


FAILURES = (
    "ERROR",
    "MIDERROR",
    "ERROR:rate",
    "ERROR:internal",
    "ERROR:limit",
    "ERROR:crash",
    "CUT",
    "EOF",
    "GARBAGE",
    "BADUTF8",
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent"])
async def test_a_conversation_with_a_failed_turn_is_never_continued(
    proxy: ProxyServer, log: DemoLog, model: str, stream: bool
) -> None:
    async with proxy.client(max_retries=0) as client:

        async def check(word: str, version: str) -> None:
            name = f"q {model} {version} {stream}".lower()
            chat = Chat(client, f"{model}@{version}", stream)
            tag = f"{name} {word.lower().replace(':', ' ')}"
            await chat.say(f"{tag} 1")
            lost = chat.conversation_id
            await fail(chat, f"{tag} 2 and some more words {word}")
            await chat.say(f"{tag} 3")
            assert_starts_with_transcript(log, f"{tag} 3", chat)
            assert chat.conversation_id != lost
            await chat.say(f"{tag} 4")
            run = the_run(log, f"{tag} 4")
            assert [text for role, text in run.history if role == "user"] == [the_run(log, f"{tag} 3").question]
            assert the_request(log, f"{tag} 2 and some more words {word}").body["conversation_id"] == lost

        versions = ("1.16",) if model == "demo-agent" else ("0.15", "1.11", "1.13", "1.16")
        await at_once(check(word, version) for word in FAILURES for version in versions)


async def test_a_partial_answer_is_part_of_the_transcript(proxy: ProxyServer, log: DemoLog) -> None:
    """The client resends the start of the failed answer, and the transcript contains it."""
    async with proxy.client(max_retries=0) as client:
        chat = Chat(client, "demo-chat", stream=True)
        await chat.say("again 1")
        await fail(chat, "again 2 and some more words MIDERROR")
        chat.messages += [
            {"role": "user", "content": "again 2"},
            {"role": "assistant", "content": "This is the"},
        ]
        await chat.say("again 3")
        assert_starts_with_transcript(log, "again 3", chat)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_with_a_cancelled_turn_is_never_continued(
    proxy: ProxyServer, log: DemoLog, stream: bool
) -> None:
    """The client disconnects in mid-answer. The conversation with the partial answer is never continued."""
    async with proxy.client() as client:

        async def converse(model: str) -> None:
            question = f"cancelled {model} {stream} SLOW:1000x100"
            chat = Chat(client, model)
            await chat.say(f"before {model} {stream}")
            leaving = Client(proxy.port)
            messages = [*chat.messages, {"role": "user", "content": question}]
            await leaving.ask(question, model, stream=stream, messages=messages)
            await log.wait_for(lambda log: any(run.question == question and run.first_event_at for run in log.runs))
            await leaving.disconnect()
            await log.wait_for(lambda log: the_run(log, question).state != "running")
            assert the_request(log, question).body["conversation_id"] == chat.conversation_id
            assert the_run(log, question).state == "stopped"
            await chat.say(f"after {model} {stream}")
            assert_starts_with_transcript(log, f"after {model} {stream}", chat)

        await at_once(converse(model) for model in MODELS)


async def test_a_disconnect_while_the_turn_waits_does_not_fork(serve: Serve, log: DemoLog) -> None:
    """A turn that waits for the spacing was not sent yet, so the next turn continues the conversation."""
    clock = Clock()
    proxy = serve(timing=ClaimTiming(turn_spacing=3), clock=clock)
    async with proxy.client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("left waiting 1")
        leaving = Client(proxy.port)
        with capture_logs() as logs:
            await leaving.ask("", "demo-chat", messages=[*chat.messages, {"role": "user", "content": "left waiting 2"}])
            await leaving.disconnect()
            await until(lambda: any(entry.get("status") == 499 for entry in logs))
        assert not requests_for(log, "left waiting 2")
        clock.ahead = 3
        await chat.say("left waiting 3")
        assert_continues(log, "left waiting 3", chat.conversation_id, *messages_of(chat)[:2])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_truncated_by_a_stop_sequence_forks(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    """Dify holds more text than the client received."""

    async def converse(model: str) -> None:
        name = f"{model} {stream}"
        chat = Chat(client, model, stream)
        await chat.say(f"stop {name} 1")
        assert await chat.say(f"stop {name} 2 SLOW:20x20", stop=["tick 3"]) == "tick 1 tick 2 "
        await chat.say(f"stop {name} 3")
        assert_starts_with_transcript(log, f"stop {name} 3", chat)
        assert "tick 3" not in the_run(log, f"stop {name} 3").question

    await at_once(converse(model) for model in MODELS)


async def test_a_stop_sequence_that_does_not_occur_does_not_fork(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat", more={"stop": ["never said"]})
    await chat.say("unstopped 1")
    await chat.say("unstopped 2")
    assert_continues(log, "unstopped 2", chat.conversation_id, *messages_of(chat)[:2])


# Retries


async def test_the_sdks_retry_after_a_lost_answer_forks(proxy: ProxyServer, log: DemoLog) -> None:
    """A connection between the client and the proxy breaks after the turn, and the SDK retries."""
    cut: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy_reader, proxy_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")
            )
            proxy_writer.write(head.replace(b"keep-alive", b"close") + await reader.readexactly(length))
            answer = await proxy_reader.read()
            if not cut and b"lost on its way" in answer:
                cut.append(len(answer))
            else:
                writer.write(answer)
                await writer.drain()
        finally:
            proxy_writer.close()
            writer.close()
            with suppress(ConnectionError):
                await proxy_writer.wait_closed()

    async with serving(relay) as port, proxy.client() as client:
        behind = client.copy(base_url=f"http://127.0.0.1:{port}/v1")
        chat = Chat(behind, "demo-chat")
        await chat.say("retried 1")
        first = chat.conversation_id
        await chat.say("retried 2 SAY<<lost on its way>>")
        assert cut
        await chat.say("retried 3")
    lost, retry = requests_for(log, "retried 2 SAY<<lost on its way>>")
    assert (lost.body["query"], lost.body["conversation_id"]) == ("retried 2 SAY<<lost on its way>>", first)
    assert "conversation_id" not in retry.body
    assert retry.body["query"] == transcript(*messages_of(chat)[:2], question="retried 2 SAY<<lost on its way>>")
    # Both answers are equal, and the next turn continues the second one.
    run = the_run(log, "retried 3")
    assert run.history == (("user", retry.body["query"]), ("assistant", "lost on its way"))


async def test_the_sdks_retry_after_a_rate_limit_forks(client: AsyncOpenAI, log: DemoLog) -> None:
    """The first try is in the conversation, the retries start new ones with transcripts."""
    chat = Chat(client, "demo-chat")
    await chat.say("busy 1")
    with pytest.raises(openai.RateLimitError):
        await chat.say("busy 2 ERROR:limit")
    first, *retries = requests_for(log, "busy 2 ERROR:limit")
    assert first.body["conversation_id"] == chat.conversation_id
    assert retries
    assert all("conversation_id" not in request.body and "User: busy 1" in request.body["query"] for request in retries)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unreachable_dify_does_not_fork_the_conversation(
    serve: Serve, demo: DemoServer, log: DemoLog, stream: bool
) -> None:
    """Nothing was sent, so the next try continues the conversation."""
    dify = DemoServer(clock=counted_seconds())
    with dify:
        proxy = serve(dify_api_url=dify.url, apps=demo_apps(dify.url))
        async with proxy.client(max_retries=0) as client:
            chat = Chat(client, "demo-chat", stream)
            await chat.say("away 1")
            named = Chat(client, "demo-chat", stream)
            await named.say("named 1")
    async with proxy.client(max_retries=0) as client:
        for other in (chat, named):
            other.client = client
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as refused:
                await chat.copy().say("away 2")
            assert refused.value.code == "upstream_unreachable"
        with pytest.raises(openai.APIStatusError):
            await named.copy().say("named 2", extra_body={"conversation_id": named.conversation_id})
        with dify:
            await chat.say("away 2")
            await named.say("named 2")
            for name, other in (("away 2", chat), ("named 2", named)):
                assert_continues(dify.log, name, other.conversation_id, *messages_of(other)[:2])
