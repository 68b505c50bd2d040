"""LangChain's ChatOpenAI holds conversations: it sends earlier messages back with the next question."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, message_chunk_to_message
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient

from openai_dify_proxy_demo import DemoServer
from tests.api.servers import ProxyServer
from tests.clients.three_turns import Ask, check_upstream, have_three_turns
from tests.limits import PATIENCE

MODELS: dict[str, dict[str, Any]] = {
    "chat": {"stream_usage": True},
    "responses": {"use_responses_api": True},
    "responses-items": {"use_responses_api": True, "output_version": "responses/v1"},
    "responses-blocks": {"use_responses_api": True, "output_version": "v1"},
    "responses-unkept": {"use_responses_api": True, "store": False, "include": ["reasoning.encrypted_content"]},
    "responses-previous": {"use_responses_api": True, "use_previous_response_id": True},
}


def invoked(model: ChatOpenAI) -> Ask:
    messages: list[BaseMessage] = []

    async def ask(question: str) -> str:
        messages.append(HumanMessage(question))
        messages.append(await model.ainvoke(messages))
        return messages[-1].text

    return ask


def streamed(model: ChatOpenAI) -> Ask:
    messages: list[BaseMessage] = []

    async def ask(question: str) -> str:
        messages.append(HumanMessage(question))
        whole = None
        async for piece in model.astream(messages):
            whole = piece if whole is None else whole + piece
        assert isinstance(whole, AIMessageChunk)
        messages.append(message_chunk_to_message(whole))
        return messages[-1].text

    return ask


async def test_three_turns(demo: DemoServer, proxy: ProxyServer) -> None:
    async with DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE) as http:
        chats: dict[str, Ask] = {}
        for name, options in MODELS.items():
            options = {"base_url": proxy.url, "api_key": "any", "http_async_client": http, **options}
            model = ChatOpenAI(model="demo-chat", **options)
            chats |= {f"{name} invoked": invoked(model), f"{name} streamed": streamed(model)}
        await asyncio.gather(*(have_three_turns(name, ask) for name, ask in chats.items()))
    for name in chats:
        check_upstream(demo, name)
