"""The end user of a request, and the name that Dify receives."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import ask, the_turn, turns
from tests.api.chats import Chat, the_request
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer

WAYS: tuple[dict[str, Any], ...] = (
    {"extra_headers": {"X-OpenWebUI-User-Id": "anna"}, "safety_identifier": "x", "user": "y"},
    {"safety_identifier": "anna", "user": "y"},
    {"user": "anna"},
)
"""One end user, each time in the field with the highest precedence of those present."""


def users(log: DemoLog) -> list[str]:
    return [request.body["user"] for request in turns(log)]


async def test_the_header_precedes_the_safety_identifier_and_that_precedes_the_user(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    for way in WAYS:
        await ask(client, "demo-chat", "hi", **way)
    await ask(client, "demo-chat", "hi")
    *annas, anonymous = users(log)
    assert len(set(annas)) == 1
    assert anonymous not in annas


async def test_a_conversation_continues_whichever_field_names_the_end_user(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat")
    for number, way in enumerate(WAYS):
        await chat.say(f"whichever {number}", **way)
    assert len({run.conversation_id for run in log.runs}) == 1


async def test_an_end_user_cannot_continue_another_end_users_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    """A matching history is not enough: bert sends anna's, word for word."""
    chat = Chat(client, "demo-chat")
    await chat.say("words 1 SAY<<yes>>", user="anna")
    stolen = chat.copy()
    await stolen.say("words of bert", user="bert")
    await chat.say("words of anna", user="anna")
    assert "conversation_id" not in the_request(log, "words of bert").body
    assert the_request(log, "words of anna").body["conversation_id"] == chat.conversation_id


@pytest.mark.parametrize("name", ["a", "x" * 255, "x" * 256, "x" * 5000, "ünï çødé 🙂", "a\nb", "0:anna:"])
async def test_every_name_is_mapped_to_one_that_dify_accepts(client: AsyncOpenAI, log: DemoLog, name: str) -> None:
    """Dify rejects more than 255 characters. The derived name never contains the original."""
    for _ in range(2):
        await ask(client, "demo-chat", "hi", user=name)
    first, again = users(log)
    assert first == again
    assert len(first) <= 255
    assert name == "a" or name not in first


async def test_long_names_that_differ_only_at_the_end_are_different_users(client: AsyncOpenAI, log: DemoLog) -> None:
    for end in "ab":
        await ask(client, "demo-chat", "hi", user="x" * 4999 + end)
    assert len(set(users(log))) == 2


async def test_the_same_name_from_two_clients_is_two_end_users(serve: Serve, log: DemoLog) -> None:
    """This includes a client that sends the app's own key."""
    proxy = serve(api_keys=("one", "two"))
    for key in ("one", "two", "app-demo-chat"):
        async with proxy.client(key) as client:
            await ask(client, "demo-chat", "hi", user="anna")
            await ask(client, "demo-chat", "hi")
    assert len(set(users(log))) == 6


async def test_a_client_cannot_continue_another_clients_conversation(serve: Serve, log: DemoLog) -> None:
    proxy = serve(api_keys=("one", "two"))
    async with proxy.client("one") as one, proxy.client("two") as two:
        chat = Chat(one, "demo-chat", more={"user": "anna"})
        await chat.say("words 1 SAY<<yes>>")
        stolen = chat.copy()
        stolen.client = two
        await stolen.say("words of two")
        await chat.say("words of one")
    assert "conversation_id" not in the_request(log, "words of two").body
    assert the_request(log, "words of one").body["conversation_id"] == chat.conversation_id


async def test_derived_names_are_the_same_in_all_processes_and_after_a_restart(serve: Serve, log: DemoLog) -> None:
    """The names are derived with a secret in the state; another state has another secret."""
    for more in ({}, {}, {"state_url": "memory://"}):
        async with serve(**more).client() as client:
            await ask(client, "demo-chat", "hi", user="anna")
    first, restarted, other_state = users(log)
    assert first == restarted != other_state


# Personal keys


async def test_a_personal_key_determines_its_end_user(serve: Serve, log: DemoLog) -> None:
    """The key takes precedence over all fields of the request, which any client can set."""
    pinned = ((SecretStr("sk-anna"), "anna"), (SecretStr("sk-bert"), "bert"))
    proxy = serve(api_keys=("shared",), personal_keys=pinned)
    for key in ("sk-anna", "sk-bert"):
        async with proxy.client(key) as client:
            for way in ({}, *WAYS, {"user": "carl"}, {"extra_headers": {"X-OpenWebUI-User-Id": "carl"}}):
                await ask(client, "demo-chat", "hi", **way)
    annas, berts = users(log)[:6], users(log)[6:]
    assert len(set(annas)) == len(set(berts)) == 1
    assert annas[0] != berts[0]


async def test_a_personal_keys_end_user_reaches_dify_unchanged_if_names_are_plain(serve: Serve, log: DemoLog) -> None:
    proxy = serve(personal_keys=((SecretStr("sk-anna"), "anna"),), end_user_id="plain")
    async with proxy.client("sk-anna") as client:
        await ask(client, "demo-chat", "hi", user="carl")
    assert users(log) == ["anna"]


# Plain names


async def test_plain_names_reach_dify_unchanged(serve: Serve, log: DemoLog) -> None:
    async with serve(end_user_id="plain").client() as client:
        for way in WAYS:
            await ask(client, "demo-chat", "hi", **way)
        await ask(client, "demo-chat", "hi", user="ünï çødé 🙂")
        await ask(client, "demo-chat", "hi", user="x" * 255)
        await ask(client, "demo-chat", "hi", user="x" * 256)
        await ask(client, "demo-chat", "hi")
    *plain, long, anonymous = users(log)
    assert plain == ["anna", "anna", "anna", "ünï çødé 🙂", "x" * 255]
    assert len(long) <= 255
    assert anonymous
    assert anonymous != long


async def test_names_of_requests_with_a_dify_key_are_never_plain(serve: Serve, log: DemoLog) -> None:
    """The caller could otherwise use the name of an end user of a client key."""
    async with serve(api_keys=("one",), end_user_id="plain").client("app-demo-chat") as client:
        await ask(client, "demo-chat", "hi", user="anna")
    assert the_turn(log).body["user"] != "anna"


@pytest.mark.parametrize("path", ["completions", "responses"])
async def test_all_routes_derive_the_same_name(proxy: ProxyServer, log: DemoLog, path: str) -> None:
    async with proxy.client() as client:
        await ask(client, "demo-chat", "hi", user="anna")
        if path == "completions":
            await client.completions.create(model="demo-chat", prompt="hi", user="anna")
        else:
            await client.responses.create(model="demo-chat", input="hi", user="anna")
    assert len(set(users(log))) == 1
