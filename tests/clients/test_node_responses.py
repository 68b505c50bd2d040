"""The official JavaScript client uses the Responses and Conversations APIs like the Python one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import INSTANT, DemoServer
from tests.api.chat_requests import Json
from tests.api.servers import ProxyServer, counted_seconds, demo_apps

ANSWER = "tick 1 tick 2 tick 3 tick 4 "


async def test_responses_and_conversations_in_javascript(node: Path, node_clients: Path, tmp_path: Path) -> None:
    state = SecretStr(f"sqlite:///{tmp_path}/state.db")
    with DemoServer(timing=INSTANT, clock=counted_seconds()) as demo:
        settings = Settings(
            dify_api_url=demo.url,
            apps=demo_apps(demo.url),
            state_url=state,
            heartbeat="chunk",
            heartbeat_interval=0.1,
        )
        with ProxyServer(settings) as proxy:
            used = await use_responses(node, node_clients, proxy.url, "demo-chat@1.16")
        chain_runs = [run for run in demo.log.runs if run.question.endswith("chain")]

    chained = used["chained"]
    assert [run.question for run in chain_runs] == ["SAY<<one>> chain", "SAY<<two>> chain", "RECALL chain"]
    assert len({run.conversation_id for run in chain_runs}) == 1
    assert (chained["first"], chained["second"]["output_text"]) == ("one", "two")
    remembered = [json.loads(line) for line in chained["third"].splitlines()]
    assert remembered == [
        ["user", "SAY<<one>> chain"],
        ["assistant", "one"],
        ["user", "SAY<<two>> chain"],
        ["assistant", "two"],
    ]
    assert chained["stored"]["output_text"] == chained["third"]

    assert used["removed"] == {
        "items": ["hello"],
        "deleted": {"status": 404, "code": "response_not_found", "param": None},
        "previous": {"status": 400, "code": "previous_response_not_found", "param": "previous_response_id"},
    }
    assert used["conversed"] == {
        "messages": [
            ["user", "earlier"],
            ["assistant", "long ago"],
            ["user", "SAY<<one>>"],
            ["assistant", "one"],
            ["user", "SAY<<two>>"],
            ["assistant", "two"],
        ],
        "metadata": {"topic": "changed"},
        "deleted": {"status": 404, "code": "conversation_not_found", "param": "conversation"},
    }

    backgrounded = used["backgrounded"]
    assert backgrounded["created"] == "queued"
    numbers = set(backgrounded["numbers"])  # heartbeats repeat the last number
    assert sorted(numbers) == list(range(len(numbers)))
    assert backgrounded["text"] == ANSWER == backgrounded["ended"]
    assert backgrounded["cancelled"] == "cancelled"
    assert backgrounded["done"] == {"status": 400, "code": None, "param": "response_id"}

    assert used["thoughts"]["output_text"] == "aloud"
    assert "response.reasoning_summary_text.delta" in used["thoughts"]["types"]
    assert "response.output_text.annotation.added" in used["thoughts"]["types"]
    assert used["quiet"]["output_text"] == "tick 1 tick 2 tick 3 "
    assert used["failed"]["early"] == {"status": 429, "code": "rate_limit_exceeded", "param": None}
    assert used["failed"]["late"]["status"] is None


async def use_responses(node: Path, node_clients: Path, url: str, model: str) -> Json:
    """Run ``use_responses.mjs`` and return its output."""
    process = await asyncio.create_subprocess_exec(
        node,
        "use_responses.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps({"url": url, "model": model}).encode())
    assert process.returncode == 0, errors.decode()
    used: Json = json.loads(output)
    return used
