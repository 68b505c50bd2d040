"""Conversations of Dify that a client names."""

from __future__ import annotations

import uuid
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.demo import DemoLog
from tests.api.asking import CONVERSING, the_turn, turns, user
from tests.api.servers import ProxyServer

VERSIONS = ("0.15", "1.11", "1.13", "1.16")
HISTORY: list[Any] = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "an answer"},
    {"role": "user", "content": "second"},
]


async def begin(client: AsyncOpenAI, model: str, **more: Any) -> str:
    """Asks a first question and returns Dify's conversation id, as the body tells it."""
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
@pytest.mark.parametrize("model", [f"{name}@{version}" for name in CONVERSING for version in VERSIONS])
async def test_a_named_conversation_goes_on_and_only_the_new_question_is_sent(
    client: AsyncOpenAI, log: DemoLog, model: str, place: str
) -> None:
    conversation_id = await begin(client, model, user="anna")
    completion = await client.chat.completions.create(
        model=model, messages=HISTORY, user="anna", **naming(place, conversation_id)
    )
    assert "I remember 2 earlier messages" in (completion.choices[0].message.content or "")
    first, second = turns(log)
    assert (second.body["query"], second.body["conversation_id"]) == ("second", conversation_id)
    assert second.body["user"] == first.body["user"]


async def test_a_stream_tells_and_continues_the_conversation_too(proxy: ProxyServer, log: DemoLog) -> None:
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
        said = [chunk.choices[0].delta.content or "" async for chunk in again.parse()]
    assert "I remember 2 earlier messages" in "".join(said)
    assert again.headers["x-dify-conversation-id"] == conversation_id


async def test_the_header_wins_over_the_body(client: AsyncOpenAI, log: DemoLog) -> None:
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
async def test_another_end_user_does_not_get_in(client: AsyncOpenAI, log: DemoLog, model: str, stream: bool) -> None:
    conversation_id = await begin(client, model, user="anna")
    strangers: list[dict[str, Any]] = [{"user": "bert"}, {"safety_identifier": "bert"}, {}]
    for stranger in strangers:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(
                model=model, messages=user("second"), stream=stream, **stranger, **naming("body", conversation_id)
            )
        assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation_id")


async def test_another_client_does_not_get_in(proxy: ProxyServer, log: DemoLog) -> None:
    """The same app and end user, but another caller: one brings the app's key, the other has none."""
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


@pytest.mark.parametrize("place", ["header", "body", "metadata"])
@pytest.mark.parametrize("conversation_id", ["no-uuid", "1", "conv_123"])
async def test_a_conversation_is_named_by_a_uuid(
    client: AsyncOpenAI, log: DemoLog, conversation_id: str, place: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="demo-chat", messages=user("hi"), **naming(place, conversation_id))
    assert refused.value.param == "conversation_id"
    assert not log.runs


async def test_an_empty_id_begins_a_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    await client.chat.completions.create(model="demo-chat", messages=user("hi"), extra_body={"conversation_id": ""})
    assert "conversation_id" not in the_turn(log).body


@pytest.mark.parametrize("model", ["demo-completion", "demo-workflow"])
async def test_apps_that_keep_no_conversation_pass_an_id_over(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await client.chat.completions.create(model=model, messages=HISTORY, **naming("body", str(uuid.uuid4())))
    body = the_turn(log).body
    assert "conversation_id" not in body
    assert "User: first" in body["inputs"]["query"]


async def test_open_webuis_user_header_names_the_end_user(client: AsyncOpenAI, log: DemoLog) -> None:
    for headers in ({"X-OpenWebUI-User-Id": "u1"}, {"X-OpenWebUI-User-Id": "u2"}, {"X-OpenWebUI-User-Id": "u1"}):
        await client.chat.completions.create(model="demo-chat", messages=user("hi"), extra_headers=headers)
    one, two, again = (request.body["user"] for request in turns(log))
    assert one == again != two
