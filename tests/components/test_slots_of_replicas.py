"""Workers and replicas share the slots of a Dify: real processes over SQLite and Valkey."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from tests.api.raw_client import Client
from tests.components.replicas import APP, Chat, Replica, client_of, serving
from tests.state.servers import ValkeyServer, valkey_program

LIMIT = "4"
LEASE_SECONDS = 15
"""The longest time for which a dead process holds its slots."""
LONG = "SLOW:1000x100"


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


@dataclass(frozen=True)
class Sharing:
    """Two replicas with two workers each, and functions that read and change their state from outside."""

    replicas: list[Replica]
    lease_seconds: Callable[[], list[float]]
    """Return how many seconds each lease of a slot has left."""
    expire_leases: Callable[[], None]


@pytest.fixture(params=["sqlite", "valkey"])
def sharing(request: pytest.FixtureRequest, demo: DemoServer, tmp_path: Path) -> Iterator[Sharing]:
    with ExitStack() as stack:
        if request.param == "valkey":
            valkey = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running())
            url, lease_seconds, expire_leases = valkey.url(), *leases_in_valkey(valkey)
        else:
            file = tmp_path / "shared.db"
            url, lease_seconds, expire_leases = f"sqlite:///{file}", *leases_in_sqlite(file)
        settings = {"STATE_URL": url, "DIFY_MAX_CONCURRENT": LIMIT}
        replicas = [stack.enter_context(serving(tmp_path / name, demo, 2, **settings)) for name in ("a", "b")]
        yield Sharing(replicas, lease_seconds, expire_leases)


def leases_in_valkey(valkey: ValkeyServer) -> tuple[Callable[[], list[float]], Callable[[], None]]:
    def keys() -> list[bytes]:
        found: list[bytes] = valkey.ask("KEYS", "openai-dify-proxy:slot:*:[0-9]")
        return found

    def expire() -> None:
        for key in keys():
            valkey.ask("PEXPIRE", key, 0)

    return lambda: [valkey.ask("PTTL", key) / 1000 for key in keys()], expire


def leases_in_sqlite(file: Path) -> tuple[Callable[[], list[float]], Callable[[], None]]:
    def run(statement: str, *values: float) -> list[float]:
        with closing(sqlite3.connect(file, isolation_level=None)) as state:
            return [row[0] for row in state.execute(f"{statement} WHERE key GLOB 'slot:*:[0-9]'", values)]

    def expire() -> None:
        run("UPDATE entries SET expires = ?", time.time())

    return lambda: run("SELECT expires - ? FROM entries", time.time()), expire


async def test_all_processes_together_keep_within_the_limit(sharing: Sharing, demo: DemoServer) -> None:
    one, other = sharing.replicas
    async with client_of(one.url) as here, client_of(other.url) as there, asyncio.TaskGroup() as group:
        for number in range(24):
            chat = Chat(number)
            group.create_task(chat.turns(there if number % 2 else here, 2))
    assert demo.log.peak_active <= int(LIMIT)
    assert len(demo.log.runs) == 48


async def test_a_killed_replica_frees_its_slots(sharing: Sharing, demo: DemoServer) -> None:
    """Its runs continue in Dify, so others wait until its leases have expired; the test lets them expire at once."""
    dying, other = sharing.replicas
    clients = [Client(int(dying.address.rpartition(":")[2])) for _ in range(int(LIMIT))]
    for client in clients:
        await client.ask(LONG, APP, stream=True)
        await client.read_until(b"tick 1")
    dying.kill()
    left = sharing.lease_seconds()
    assert len(left) == int(LIMIT)
    assert 0 < min(left) <= max(left) <= LEASE_SECONDS
    async with client_of(other.url) as there, asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(Chat(number).turn(there))
        await asyncio.to_thread(sharing.expire_leases)
    for client in clients:
        await client.disconnect()
    assert len(demo.log.runs) == int(LIMIT) + 8
