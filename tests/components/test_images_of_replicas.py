"""Usage, prices and budgets of a key whose pictures come from two replicas that share a Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.components.replicas import serving
from tests.components.test_metrics_of_replicas import Site, http, known, prices_in_dify
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

__all__ = ["http"]

PAINTER = "app-demo-chat-painter"
REPLICATE_MODEL = "stability-ai/sdxl"
APPS = """
[apps.painter]
api_key = "{key}"
api_url = "{url}"

[images.models.poster]
app = "painter"
"""


@pytest.fixture
def replicate() -> Iterator[DemoReplicate]:
    with DemoReplicate() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, replicate: DemoReplicate) -> Iterator[Site]:
    with DemoServer() as demo, ExitStack() as stack:
        state = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running()).url()
        (tmp_path / "apps.toml").write_text(APPS.format(key=PAINTER, url=demo.url))
        env = {
            "STATE_URL": state,
            "CONFIG_FILE": str(tmp_path / "apps.toml"),
            "REPLICATE_API_URL": replicate.url,
            "REPLICATE_API_TOKEN": replicate.token,
            "REPLICATE_OUTPUT_HOSTS": replicate.output_origin,
        }
        replicas = [stack.enter_context(serving(tmp_path / name, demo, 1, **env)) for name in ("a", "b")]
        yield Site(demo, replicas, state)


async def paint(
    http: httpx2.AsyncClient, site: Site, key: str, number: int, *, model: str, n: int = 1
) -> httpx2.Response:
    """Ask one of the replicas for ``n`` pictures."""
    body = {"model": model, "prompt": f"Picture {number} SETTLED", "n": n, "size": "64x64"}
    url = f"{site.replicas[number % 2].url}/images/generations"
    return await http.post(url, json=body, headers={"Authorization": f"Bearer {key}"})


async def usage(http: httpx2.AsyncClient, site: Site, key: str, turns: int) -> dict[str, Any]:
    """Return the usage by app, which both replicas report, once it has so many turns: it is up to a second old."""
    reports: list[Any] = [None, {"total": {"turns": 0}}]
    async with asyncio.timeout(PATIENCE):  # they are read one after the other, so they may differ for a moment
        while reports[0] != reports[1] or reports[1]["total"]["turns"] != turns:
            replies = [
                await http.get(f"{replica.url}/usage", headers={"Authorization": f"Bearer {key}"})
                for replica in site.replicas
            ]
            reports = [reply.json() for reply in replies]
    return {row["app"]: row for row in reports[0]["data"]}


async def test_usage_has_the_pictures_and_prices_of_both_replicas(
    site: Site, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    key = site.create_key(tmp_path, "anna")
    await known(site, key)
    requests = [paint(http, site, key, number, model="poster", n=2) for number in range(6)]
    requests += [paint(http, site, key, number, model=REPLICATE_MODEL, n=3) for number in range(4)]
    replies = await asyncio.gather(*requests)
    assert [len(reply.json()["data"]) for reply in replies] == [2] * 6 + [3] * 4
    rows = await usage(http, site, key, turns=12 + 4)  # each run of an app is a turn, and each request to Replicate
    assert (rows["painter"]["turns"], rows["painter"]["pictures"]) == (12, 12)
    assert Decimal(rows["painter"]["price"]["USD"]) == await prices_in_dify(http, site.demo, PAINTER) > 0
    assert (rows[REPLICATE_MODEL]["turns"], rows[REPLICATE_MODEL]["pictures"]) == (4, 12)
    assert rows[REPLICATE_MODEL]["price"] == {}


@pytest.mark.parametrize("model", ["poster", REPLICATE_MODEL])
async def test_a_budget_of_turns_ends_at_both_replicas(
    site: Site, http: httpx2.AsyncClient, tmp_path: Path, replicate: DemoReplicate, model: str
) -> None:
    key = site.create_key(tmp_path, "anna", "--daily-turns", "5")
    await known(site, key)
    replies = [await paint(http, site, key, number, model=model) for number in range(8)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429] * 3
    assert {reply.json()["error"]["code"] for reply in replies[5:]} == {"insufficient_quota"}
    assert len(site.demo.log.runs) + len(replicate.log.predictions) == 5


async def test_a_budget_in_money_is_exceeded_by_the_runs_in_flight_only(
    site: Site, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    first = site.create_key(tmp_path, "first")
    await known(site, first)
    assert (await paint(http, site, first, 0, model="poster")).status_code == 200
    one = await prices_in_dify(http, site.demo, PAINTER)
    key = site.create_key(tmp_path, "anna", "--monthly-price", f"{one * 10} USD")
    await known(site, key)
    at_once = 4

    async def client(number: int) -> list[int]:
        statuses = [200]
        while statuses[-1] == 200:
            statuses.append((await paint(http, site, key, number, model="poster")).status_code)
        return statuses[1:]

    statuses = [status for found in await asyncio.gather(*map(client, range(at_once))) for status in found]
    assert statuses.count(429) == at_once
    assert 10 <= statuses.count(200) == len(statuses) - at_once < 10 + at_once
    spent = await prices_in_dify(http, site.demo, PAINTER) - one
    assert spent == one * statuses.count(200)
    rows = await usage(http, site, key, turns=statuses.count(200))
    assert Decimal(rows["painter"]["price"]["USD"]) == spent
