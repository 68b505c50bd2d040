"""``POST /v1/responses/input_tokens``, with openai-python and over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import error_of, turns
from tests.api.servers import ProxyServer

FUNCTION = {"type": "function", "name": "f", "description": "d" * 40, "parameters": {"type": "object"}, "strict": True}


async def test_the_estimate_grows_with_the_input(client: AsyncOpenAI, log: DemoLog) -> None:
    async def count(**fields: Any) -> int:
        counted = await client.responses.input_tokens.count(model="demo-chat", **fields)
        assert counted.object == "response.input_tokens"
        return counted.input_tokens

    hello = await count(input="x" * 400)
    assert 80 <= hello <= 120
    assert await count(input="x" * 800) > hello
    assert await count(input="x" * 400, instructions="Be kind.") > hello
    assert await count(input="x" * 400, tools=[FUNCTION]) > hello
    schema = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {}}}}
    assert await count(input="x" * 400, text=schema) > hello
    assert not turns(log)


async def test_the_stored_history_counts(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await client.responses.create(model="demo-chat", input="x" * 400)
    alone = await client.responses.input_tokens.count(model="demo-chat", input="Hi")
    after = await client.responses.input_tokens.count(model="demo-chat", input="Hi", previous_response_id=first.id)
    assert after.input_tokens >= alone.input_tokens + 100
    conversation = await client.conversations.create(items=[{"role": "user", "content": "x" * 800}])
    inside = await client.responses.input_tokens.count(model="demo-chat", input="Hi", conversation=conversation.id)
    assert inside.input_tokens >= alone.input_tokens + 200
    assert len(turns(log)) == 1


async def test_the_answer_says_that_it_is_an_estimate(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    body = {"model": "demo-chat", "input": "Hi", "tools": [{"type": "web_search"}]}
    for path in ("/v1/responses/input_tokens", "/responses/input_tokens"):
        reply = await http.post(f"{proxy.origin}{path}", json=body)
        expected = {"object": "response.input_tokens", "input_tokens": 1, "dify": {"usage_estimated": True}}
        assert (reply.status_code, reply.json()) == (200, expected)
        assert reply.headers["x-unsupported-parameters"] == "tools[0] (web_search)"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": 7}, 400, "input"),
        ({"input": "Hi", "temperature": 3}, 400, "temperature"),
        ({"input": "Hi", "model": "unknown-model"}, 404, "model"),
        ({"input": "Hi", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"input": "Hi", "conversation": "conv_1"}, 404, "conversation"),
        ({"input": "Hi", "conversation": "foo"}, 400, "conversation"),
        ({"input": "Hi", "tool_choice": "x"}, 400, "tool_choice"),
    ],
)
async def test_it_is_validated_like_a_response(
    proxy: ProxyServer, http: httpx2.AsyncClient, body: dict[str, Any], status: int, param: str
) -> None:
    for path in ("/responses/input_tokens", "/responses"):
        reply = await http.post(f"{proxy.url}{path}", json={"model": "demo-chat", **body})
        assert (reply.status_code, error_of(reply)["param"]) == (status, param)
