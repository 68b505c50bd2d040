"""Metrics, usage and budgets of two replicas with two workers each: they are what the clients counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program
from tests.components.replicas import Replica, serving
from tests.components.test_keys_of_replicas import until_all_answer
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

PREFIX = "openai_dify_proxy_"
UNSHARED = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
"""Each request has a new connection, which any worker may accept."""


class Site(NamedTuple):
    """Two replicas, and the demo Dify that has served their turns."""

    demo: DemoServer
    replicas: list[Replica]
    state: str

    def create_key(self, directory: Path, *options: str) -> str:
        done = Program(directory).run("keys", "create", *options, STATE_URL=self.state)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with DemoServer() as demo, ExitStack() as stack:
        state = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running()).url()
        replicas = [
            stack.enter_context(serving(tmp_path / name, demo, 2, STATE_URL=state, METRICS_OPEN="true"))
            for name in ("a", "b")
        ]
        yield Site(demo, replicas, state)


@pytest.fixture
async def http() -> Any:
    async with httpx2.AsyncClient(verify=False, timeout=PATIENCE, limits=UNSHARED) as client:
        yield client


async def turn(http: httpx2.AsyncClient, site: Site, key: str, number: int) -> httpx2.Response:
    """Send a turn to one of the replicas, every second one streamed."""
    question = f"Question {number} " + "x" * number
    body: dict[str, Any] = {"model": "demo-chat", "messages": [{"role": "user", "content": question}]}
    if number % 4 < 2:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    url = site.replicas[number % 2].url
    return await http.post(f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})


def usage_of(reply: httpx2.Response) -> tuple[int, int]:
    """Return the tokens that the client was told."""
    text = reply.text.split("data: ")[-2] if reply.text.startswith("data: ") else reply.text
    usage = json.loads(text)["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def known(site: Site, key: str) -> None:
    """Wait until every process knows the key. Before the first key they serve everyone."""
    for replica in site.replicas:
        await until_all_answer(replica.url, "", 401)
        await until_all_answer(replica.url, key, 200)


async def total(http: httpx2.AsyncClient, site: Site, name: str, **labels: str) -> float:
    """Return the sum of the samples of all replicas with these labels."""
    found = 0.0
    for replica in site.replicas:
        reply = await http.get(f"http://{replica.address}/metrics")
        assert reply.status_code == 200, reply.text
        for family in text_string_to_metric_families(reply.text):
            for sample in family.samples:
                if sample.name == PREFIX + name and labels.items() <= sample.labels.items():
                    found += sample.value
    return found


async def until_total(http: httpx2.AsyncClient, expected: float, site: Site, name: str, **labels: str) -> None:
    """Wait until the sum has this value: the counts of other workers are up to a second old."""
    async with asyncio.timeout(PATIENCE):
        while (found := await total(http, site, name, **labels)) < expected:
            pass
    assert found == expected


async def prices_in_dify(http: httpx2.AsyncClient, demo: DemoServer, key: str = "app-demo-chat") -> Decimal:
    """Return the sum of the prices of an app's messages, as the demo's own list of messages has them."""
    prices = Decimal(0)
    for conversation, user in {(run.conversation_id, run.user) for run in demo.log.runs}:
        query = {"conversation_id": conversation, "user": user}
        reply = await http.get(f"{demo.url}/messages", params=query, headers={"Authorization": f"Bearer {key}"})
        prices += sum(Decimal(row["total_price"]) for row in reply.json()["data"])
    return prices


async def test_metrics_and_usage_are_what_the_clients_counted(
    site: Site, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    key = site.create_key(tmp_path, "anna")
    await known(site, key)
    replies = await asyncio.gather(*(turn(http, site, key, number) for number in range(60)))
    assert {reply.status_code for reply in replies} == {200}
    prompt, completion = map(sum, zip(*map(usage_of, replies), strict=True))
    route = {"route": "/v1/chat/completions", "method": "POST", "status": "200"}
    await until_total(http, 60, site, "requests_total", **route)
    await until_total(http, 60, site, "turns_total", outcome="stop")
    await until_total(http, prompt, site, "tokens_total", kind="prompt")
    await until_total(http, completion, site, "tokens_total", kind="completion")
    await until_total(http, 60, site, "first_text_seconds_count")
    usage: dict[str, Any] = {"turns": 0}
    async with asyncio.timeout(PATIENCE):
        while usage["turns"] < 60:
            reply = await http.get(f"{site.replicas[0].url}/usage", headers={"Authorization": f"Bearer {key}"})
            usage = reply.json()["total"]
    assert usage["outcomes"] == {"stop": 60}
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
    assert Decimal(usage["price"]["USD"]) == await prices_in_dify(http, site.demo)


async def test_parallel_load_exceeds_a_budget_by_the_turns_in_flight(
    site: Site, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    key = site.create_key(tmp_path, "anna", "--daily-turns", "40", "--concurrent-turns", "50")
    await known(site, key)
    at_once = 12

    async def client(first: int) -> list[int]:
        statuses = []
        for number in range(first, 1000, at_once):
            statuses.append((await turn(http, site, key, number % 40)).status_code)
            if statuses[-1] != 200:
                break
        return statuses

    statuses = [status for found in await asyncio.gather(*map(client, range(at_once))) for status in found]
    assert statuses.count(429) == at_once
    assert 40 <= statuses.count(200) == len(statuses) - at_once < 40 + at_once
    assert len(site.demo.log.runs) == statuses.count(200)
