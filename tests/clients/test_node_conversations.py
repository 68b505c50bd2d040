"""The official JavaScript client holds conversations in every way that its documentation shows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from tests.api.chat_requests import Json
from tests.api.servers import ProxyServer
from tests.clients.three_turns import check_replies, check_upstream, questions

WAYS = (
    "chat",
    "chatStreamed",
    "chatHelper",
    "items",
    "itemsStreamed",
    "itemsHelper",
    "previous",
    "previousStreamed",
    "previousHelper",
)


@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat"])
async def test_three_turns(demo: DemoServer, proxy: ProxyServer, node: Path, node_clients: Path, model: str) -> None:
    replies = await converse(node, node_clients, proxy.url, model)
    for way in WAYS:
        check_replies(way, replies[way])
        check_upstream(demo, way)


async def converse(node: Path, node_clients: Path, url: str, model: str) -> Json:
    """Run ``three_turns.mjs`` and return its output."""
    process = await asyncio.create_subprocess_exec(
        node,
        "three_turns.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    request = {"url": url, "model": model, "questions": {way: questions(way) for way in WAYS}}
    output, errors = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, errors.decode()
    replies: Json = json.loads(output)
    return replies
