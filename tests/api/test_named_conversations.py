"""Dify conversations that a client names by their id."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs

from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy.turns.locks import LEASE_SECONDS
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import CONVERSING, the_turn, turns, user
from tests.api.chats import Chat, at_once, requests_for, the_run
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import ProxyServer

VERSIONS = ("0.15", "1.11", "1.13", "1.16")
HISTORY: list[Any] = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "an answer"},
    {"role": "user", "content": "second"},
]


async def begin(client: AsyncOpenAI, model: str, **more: Any) -> str:
    """Send a first question and return the conversation id of the response body."""
    completion = await client.chat.completions.create(model=model, messages=user("first"), **more)
    conversation_id = (completion.model_extra or {})["dify"]["conversation_id"]
    assert isinstance(conversation_id, str)
    return conversation_id


def naming(place: str, conversation_id: str) -> dict[str, Any]:
    match place:
        case "header":
            return {"extra_headers": {"X-Dify-Conversation-Id": conversation_id}}
        case "body":
            return {"extra_body": {"conversation_id": conversation_id}}
        case _:
            return {"metadata": {"conversation_id": conversation_id}}


@pytest.mark.parametrize("place", ["header", "body", "metadata"])
async def test_a_named_conversation_is_continued_with_only_the_new_question(
    client: AsyncOpenAI, log: DemoLog, place: str
) -> None:
    async def converse(model: str) -> None:
        end_user, question = f"anna {place}", f"second of {model}"
        conversation_id = await begin(client, model, user=end_user)
        messages = [*HISTORY[:2], {"role": "user", "content": question}]
        completion = await client.chat.completions.create(
            model=model, messages=messages, user=end_user, **naming(place, conversation_id)
        )
        assert "I remember 2 earlier messages" in (completion.choices[0].message.content or "")
        (request,) = requests_for(log, question)
        assert (request.body["query"], request.body["conversation_id"]) == (question, conversation_id)
        first, second = (run.user for run in log.runs if run.conversation_id == conversation_id)
        assert first == second

    await at_once(converse(f"{name}@{version}") for name in CONVERSING for version in VERSIONS)


async def test_a_stream_names_and_continues_the_conversation(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="demo-chat", messages=user("first"), stream=True
        )
        stream = raw.parse()
        chunks = [chunk async for chunk in stream]
        conversation_id = raw.headers["x-dify-conversation-id"]
        assert (chunks[-1].model_extra or {})["dify"]["conversation_id"] == conversation_id
        again = await client.chat.completions.with_raw_response.create(
            model="demo-chat",
            messages=HISTORY,
            stream=True,
            extra_headers={"X-Dify-Conversation-Id": conversation_id},
        )
        deltas = [chunk.choices[0].delta.content or "" async for chunk in again.parse()]
    assert "I remember 2 earlier messages" in "".join(deltas)
    assert again.headers["x-dify-conversation-id"] == conversation_id


async def test_the_header_takes_precedence_over_the_body(client: AsyncOpenAI, log: DemoLog) -> None:
    one, other = await begin(client, "demo-chat"), await begin(client, "demo-chat")
    await client.chat.completions.create(
        model="demo-chat",
        messages=user("second"),
        extra_headers={"X-Dify-Conversation-Id": one},
        extra_body={"conversation_id": other},
    )
    assert turns(log)[-1].body["conversation_id"] == one


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [f"{name}@{version}" for name in CONVERSING for version in ("1.11", "1.16")])
async def test_another_end_user_has_no_access(client: AsyncOpenAI, log: DemoLog, model: str, stream: bool) -> None:
    conversation_id = await begin(client, model, user="anna")
    strangers: list[dict[str, Any]] = [{"user": "bert"}, {"safety_identifier": "bert"}, {}]
    for stranger in strangers:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(
                model=model, messages=user("second"), stream=stream, **stranger, **naming("body", conversation_id)
            )
        assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation_id")


async def test_another_client_has_no_access(proxy: ProxyServer, log: DemoLog) -> None:
    """The same app and end user, but different callers: one sends the app's key, the other no key."""
    async with proxy.client() as anonymous, proxy.client("app-demo-chat") as keyed:
        conversation_id = await begin(anonymous, "demo-chat", user="anna")
        with pytest.raises(openai.NotFoundError):
            await keyed.chat.completions.create(
                model="demo-chat", messages=user("second"), user="anna", **naming("body", conversation_id)
            )


async def test_an_unknown_conversation_is_a_404(client: AsyncOpenAI, log: DemoLog) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(
            model="demo-chat", messages=user("hi"), **naming("header", str(uuid.uuid4()))
        )
    assert refused.value.code == "conversation_not_found"


@pytest.mark.parametrize(
    ("place", "param"),
    [
        ("header", "X-Dify-Conversation-Id"),
        ("body", "conversation_id"),
        ("metadata", "metadata.conversation_id"),
    ],
)
@pytest.mark.parametrize("conversation_id", ["no-uuid", "1", "conv_123"])
async def test_an_id_that_is_not_a_uuid_is_rejected(
    client: AsyncOpenAI, log: DemoLog, conversation_id: str, place: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{param} must be a UUID") as refused:
        await client.chat.completions.create(model="demo-chat", messages=user("hi"), **naming(place, conversation_id))
    assert refused.value.param == param
    assert not log.runs


async def test_an_empty_id_starts_a_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    await client.chat.completions.create(model="demo-chat", messages=user("hi"), extra_body={"conversation_id": ""})
    assert "conversation_id" not in the_turn(log).body


@pytest.mark.parametrize("model", ["demo-completion", "demo-workflow"])
async def test_apps_without_conversations_ignore_an_id(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await client.chat.completions.create(model=model, messages=HISTORY, **naming("body", str(uuid.uuid4())))
    body = the_turn(log).body
    assert "conversation_id" not in body
    assert "User: first" in body["inputs"]["query"]


async def test_open_webuis_user_header_names_the_end_user(client: AsyncOpenAI, log: DemoLog) -> None:
    for headers in ({"X-OpenWebUI-User-Id": "u1"}, {"X-OpenWebUI-User-Id": "u2"}, {"X-OpenWebUI-User-Id": "u1"}):
        await client.chat.completions.create(model="demo-chat", messages=user("hi"), extra_headers=headers)
    one, two, again = (request.body["user"] for request in turns(log))
    assert one == again != two


# One turn at a time


LONG_LOCK_TIMEOUT = ClaimTiming(turn_spacing=0, lock_timeout=1000)
"""With this lock timeout, a test fails unless a waiting turn gets the lock as soon as the earlier turn ends."""


async def test_the_wait_for_another_turn_has_a_timeout(serve: Serve, log: DemoLog) -> None:
    """After the lock timeout the client gets an error with ``retry-after``."""
    proxy = serve(timing=ClaimTiming(turn_spacing=0, lock_timeout=0.5))
    async with proxy.client(max_retries=0) as client, proxy.client(max_retries=20) as retrying:
        conversation_id = await begin(client, "demo-chat")
        holder = Client(proxy.port)
        await holder.ask("SLOW:1000x100", "demo-chat", stream=True, conversation_id=conversation_id)
        await holder.read_until(b"tick 2")
        with pytest.raises(openai.ConflictError) as refused:
            await client.chat.completions.create(
                model="demo-chat", messages=user("locked out"), **naming("body", conversation_id)
            )
        assert (refused.value.code, refused.value.param) == ("conversation_locked", "conversation_id")
        assert refused.value.response.headers["retry-after"] == "1"
        assert "x-should-retry" not in refused.value.response.headers
        assert not requests_for(log, "locked out")
        await holder.disconnect()
        await retrying.chat.completions.create(
            model="demo-chat", messages=user("let in"), **naming("body", conversation_id)
        )
        assert the_run(log, "let in").conversation_id == conversation_id


async def test_a_failed_turn_releases_its_lock(serve: Serve, log: DemoLog) -> None:
    """The lock timeout is shorter than the lease, so the failed turn must release its lock."""
    proxy = serve(timing=ClaimTiming(turn_spacing=0, lock_timeout=LEASE_SECONDS / 2))
    async with proxy.client(max_retries=0) as client:

        async def converse(word: str, stream: bool) -> None:
            conversation_id = await begin(client, "demo-chat")
            name = naming("body", conversation_id)
            with pytest.raises(openai.APIError):
                await Chat(client, "demo-chat", stream).say(f"some words and {word}", **name)
            await Chat(client, "demo-chat", stream).say(f"let in after {word} {stream}".lower(), **name)
            assert the_run(log, f"let in after {word} {stream}".lower()).conversation_id == conversation_id

        words = ("ERROR", "MIDERROR", "CUT")
        await at_once(converse(word, stream) for word in words for stream in (False, True))


async def test_a_disconnect_while_waiting_sends_nothing_to_dify(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client() as client:
        conversation_id = await begin(client, "demo-chat")
        holder, leaving = Client(proxy.port), Client(proxy.port)
        await holder.ask("SLOW:1000x100", "demo-chat", stream=True, conversation_id=conversation_id)
        await holder.read_until(b"tick 2")
        with capture_logs() as logs:
            await leaving.ask("never asked", "demo-chat", conversation_id=conversation_id)
            await leaving.disconnect()
            await until(lambda: any(entry.get("status") == 499 for entry in logs))
        await holder.disconnect()
        await Chat(client, "demo-chat").say("let in", **naming("body", conversation_id))
    assert not requests_for(log, "never asked")


# Named conversations and histories


async def test_a_named_conversation_may_be_continued_by_its_history(client: AsyncOpenAI, log: DemoLog) -> None:
    """And the reverse. It is one conversation, and only its newest point can be continued."""
    chat = Chat(client, "demo-chat", more={"user": "anna"})
    await chat.say("mixed 1")
    await chat.say("mixed 2", **naming("body", str(chat.conversation_id)))
    old = chat.copy(messages=2)
    await chat.say("mixed 3")
    assert len({run.conversation_id for run in log.runs}) == 1
    assert len(the_run(log, "mixed 3").history) == 4
    await old.say("mixed old")
    assert "conversation_id" not in requests_for(log, "mixed old")[0].body


@pytest.fixture
async def waiting_client(serve: Serve) -> AsyncIterator[AsyncOpenAI]:
    async with serve(timing=LONG_LOCK_TIMEOUT).client() as client:
        yield client


async def test_a_named_turn_waits_for_a_turn_found_by_its_history(waiting_client: AsyncOpenAI, log: DemoLog) -> None:
    """Afterwards the history of the other chat no longer matches, and starts another conversation."""
    chat = Chat(waiting_client, "demo-chat")
    await chat.say("amid 1")
    shared = str(chat.conversation_id)
    turn = asyncio.create_task(chat.say("amid 2 SLOW:30x50"))
    await log.wait_for(lambda log: requests_for(log, "amid 2 SLOW:30x50"))
    named = Chat(waiting_client, "demo-chat")
    await named.say("named amid", **naming("body", shared))
    await turn
    assert (the_run(log, "amid 2 SLOW:30x50").finished_at or 0) < the_run(log, "named amid").started_at
    assert chat.conversation_id == shared
    assert [text for role, text in the_run(log, "named amid").history if role == "user"] == [
        "amid 1",
        "amid 2 SLOW:30x50",
    ]
    await chat.say("amid 3")
    assert "conversation_id" not in requests_for(log, "amid 3")[0].body
    assert "User: amid 2" in requests_for(log, "amid 3")[0].body["query"]
    await named.say("named again", **naming("body", shared))


async def test_conversations_with_equal_histories_do_not_wait_for_each_other(
    waiting_client: AsyncOpenAI, log: DemoLog
) -> None:
    """All have the same history, which leads to the latest one."""
    chats = [Chat(waiting_client, "demo-chat") for _ in range(3)]
    for number in range(3):
        for chat in chats:
            name = naming("body", str(chat.conversation_id)) if number else {}
            await chat.say(f"same {number} SAY<<yes>>", **name)
    await at_once(chat.say("same by history") for chat in chats)
    for chat in chats:
        await chat.copy().say("same at last", **naming("body", str(chat.conversation_id)))
    assert len({chat.conversation_id for chat in chats}) == 3


async def test_a_named_conversation_never_gets_a_transcript(client: AsyncOpenAI, log: DemoLog) -> None:
    """The system message is sent only if it has changed."""
    chat = Chat(client, "demo-chat", messages=[{"role": "system", "content": "Be kind."}])
    await chat.say("system 1")
    name = naming("header", str(chat.conversation_id))
    await chat.say("system 2", **name)
    chat.messages[0]["content"] = "Be rude."
    await chat.say("system 3", **name)
    assert [request.body["query"] for request in turns(log)] == [
        "Be kind.\n\nsystem 1",
        "system 2",
        "Be rude.\n\nsystem 3",
    ]
