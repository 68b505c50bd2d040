"""JavaScript clients call tools and read schemas: the official one, and the Vercel AI SDK with both providers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.chat_requests import Json
from tests.api.servers import ProxyServer

APPS = pytest.mark.parametrize(
    "model", ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent", "demo-completion", "demo-workflow"]
)
QUESTIONS = {
    "tool": "What does get_weather say about 'Paris'?",
    "schema": "'Anna' is 31 years old.",
    "other": "And what does get_weather say about 'Rome'?",
}
PERSON = {"name": "Anna", "age": 31}
ANSWER = "The result of get_weather is: sunny in Paris"


@APPS
async def test_the_official_client(proxy: ProxyServer, node: Path, node_clients: Path, model: str) -> None:
    """Schemas of zod, tools of zod, and the helpers that run tools until there is an answer, over both APIs."""
    call = {"name": "get_weather", "parsed": {"city": "Paris"}}
    in_chat = {**call, "content": None, "finish_reason": "tool_calls"}
    in_response = {**call, "type": "function_call"}
    run = {"answer": ANSWER, "roles": ["user", "assistant", "tool", "assistant"]}
    assert await use(node, node_clients, "call_tools.mjs", proxy, model) == {
        "chatParseSchema": PERSON,
        "chatStreamSchema": PERSON,
        "chatParseTool": in_chat,
        "chatStreamTool": in_chat,
        "chatRunTools": run,
        "chatRunToolsStreamed": {**run, "streamed": ANSWER},
        "responsesParseSchema": PERSON,
        "responsesStreamSchema": PERSON,
        "responsesParseTool": in_response,
        "responsesStreamTool": in_response,
        "responsesRunTools": ANSWER,
        "responsesRunToolsStreamed": ANSWER,
    }


@APPS
async def test_the_ai_sdk(proxy: ProxyServer, node: Path, node_clients: Path, model: str) -> None:
    expected = {
        "generateTextSteps": steps("Paris"),
        "streamTextSteps": {"steps": steps("Paris"), "streamed": ANSWER, "inputs": True},
        "nextQuestion": steps("Rome"),
        "requiredTool": [["get_weather", {"city": "Rome"}]],
        "generatedObject": PERSON,
        "streamedObject": {"object": PERSON, "last": PERSON},
        "textOutput": PERSON,
    }
    assert await use(node, node_clients, "use_ai_sdk.mjs", proxy, model) == {
        "compatible": expected,
        "chat": expected,
        "responses": expected,
    }


def steps(city: str) -> list[Json]:
    """Return the two steps that answer a question about a city: the call with its result, and the answer."""
    weather = f"sunny in {city}"
    return [
        {"reason": "tool-calls", "calls": [["get_weather", {"city": city}]], "results": [weather], "text": ""},
        {"reason": "stop", "calls": [], "results": [], "text": f"The result of get_weather is: {weather}"},
    ]


async def use(node: Path, node_clients: Path, script: str, proxy: ProxyServer, model: str) -> Any:
    """Run a script with the questions and return its output."""
    process = await asyncio.create_subprocess_exec(
        node,
        script,
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    request = {"url": proxy.url, "model": model, "questions": QUESTIONS}
    output, errors = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, errors.decode()
    return json.loads(output)
