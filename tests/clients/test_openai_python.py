"""The official Python client holds conversations in every way that its documentation shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from openai_dify_proxy_demo import DemoServer
from tests.api.servers import ProxyServer
from tests.clients.three_turns import Ask, check_upstream, have_three_turns


def chat(client: AsyncOpenAI, model: str) -> Ask:
    messages: list[Any] = []

    async def ask(question: str) -> str:
        messages.append({"role": "user", "content": question})
        completion = await client.chat.completions.create(model=model, messages=messages)
        messages.append(completion.choices[0].message)
        return completion.choices[0].message.content or ""

    return ask


def chat_streamed(client: AsyncOpenAI, model: str) -> Ask:
    messages: list[Any] = []

    async def ask(question: str) -> str:
        messages.append({"role": "user", "content": question})
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
        reply = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        messages.append({"role": "assistant", "content": reply})
        return reply

    return ask


def chat_helper(client: AsyncOpenAI, model: str) -> Ask:
    messages: list[Any] = []

    async def ask(question: str) -> str:
        messages.append({"role": "user", "content": question})
        async with client.chat.completions.stream(model=model, messages=messages) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        messages.append(message)
        return message.content or ""

    return ask


def items(client: AsyncOpenAI, model: str) -> Ask:
    """Send all items each time, including those of the answers as received."""
    history: list[Any] = []

    async def ask(question: str) -> str:
        history.append({"role": "user", "content": question})
        response = await client.responses.create(model=model, input=history, store=False)
        history.extend(response.output)
        return response.output_text

    return ask


def items_helper(client: AsyncOpenAI, model: str) -> Ask:
    history: list[Any] = []

    async def ask(question: str) -> str:
        history.append({"role": "user", "content": question})
        async with client.responses.stream(model=model, input=history) as stream:
            response = await stream.get_final_response()
        history.extend(response.output)
        return response.output_text

    return ask


def previous(client: AsyncOpenAI, model: str) -> Ask:
    last: list[str] = []

    async def ask(question: str) -> str:
        more: Any = {"previous_response_id": last[-1]} if last else {}
        response: Response = await client.responses.create(model=model, input=question, **more)
        last.append(response.id)
        return response.output_text

    return ask


def previous_helper(client: AsyncOpenAI, model: str) -> Ask:
    last: list[str] = []

    async def ask(question: str) -> str:
        more: Any = {"previous_response_id": last[-1]} if last else {}
        async with client.responses.stream(model=model, input=question, **more) as stream:
            response = await stream.get_final_response()
        last.append(response.id)
        return response.output_text

    return ask


def conversation(client: AsyncOpenAI, model: str) -> Ask:
    named: list[str] = []

    async def ask(question: str) -> str:
        if not named:
            named.append((await client.conversations.create(metadata={"topic": "capitals"})).id)
        response = await client.responses.create(model=model, input=question, conversation=named[0])
        assert response.conversation is not None
        assert response.conversation.id == named[0]
        return response.output_text

    return ask


WAYS = {
    "chat": chat,
    "chat-streamed": chat_streamed,
    "chat-helper": chat_helper,
    "items": items,
    "items-helper": items_helper,
    "previous": previous,
    "previous-helper": previous_helper,
    "conversation": conversation,
}


@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat", "demo-agent"])
async def test_three_turns(demo: DemoServer, proxy: ProxyServer, model: str) -> None:
    async with proxy.client() as client:
        await asyncio.gather(*(have_three_turns(name, way(client, model)) for name, way in WAYS.items()))
    for name in WAYS:
        check_upstream(demo, name)
