"""Workers and replicas share the slots of a Dify: real processes over SQLite and Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from tests.api.raw_client import Client
from tests.components.replicas import APP, Chat, Replica, client_of, serving
from tests.state.servers import ValkeyServer, valkey_program

LIMIT = "4"
LONG = "SLOW:1000x100"


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


@pytest.fixture(params=["sqlite", "valkey"])
def replicas(request: pytest.FixtureRequest, demo: DemoServer, tmp_path: Path) -> Iterator[list[Replica]]:
    """Two replicas, each with two workers."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/shared.db"
        if request.param == "valkey":
            url = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running()).url()
        settings = {"STATE_URL": url, "DIFY_MAX_CONCURRENT": LIMIT}
        yield [stack.enter_context(serving(tmp_path / name, demo, 2, **settings)) for name in ("a", "b")]


async def test_all_processes_together_keep_within_the_limit(replicas: list[Replica], demo: DemoServer) -> None:
    async with client_of(replicas[0].url) as here, client_of(replicas[1].url) as there, asyncio.TaskGroup() as group:
        for number in range(24):
            chat = Chat(number)
            group.create_task(chat.turns(there if number % 2 else here, 2))
    assert demo.log.peak_active <= int(LIMIT)
    assert len(demo.log.runs) == 48


async def test_a_killed_replica_frees_its_slots(replicas: list[Replica], demo: DemoServer) -> None:
    """Its runs go on in Dify, so others wait until its leases have expired."""
    dying, other = replicas
    clients = [Client(int(dying.address.rpartition(":")[2])) for _ in range(int(LIMIT))]
    for client in clients:
        await client.ask(LONG, APP, stream=True)
        await client.read_until(b"tick 1")
    dying.kill()
    async with client_of(other.url) as there, asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(Chat(number).turn(there))
    for client in clients:
        await client.disconnect()
    assert len(demo.log.runs) == int(LIMIT) + 8
