"""The contract of state stores, for each backend."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openai_dify_proxy.state import Add, Get, Operation, Put, StateUnavailable, Store, Take, open_store
from openai_dify_proxy.state.eviction import slack
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.sqlite import SqliteStore
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer

BACKENDS = ["memory", "sqlite", "exclusive", "valkey", "cluster"]
SHARED = ["sqlite", "exclusive", "valkey", "cluster"]


class Deferring(SqliteStore):
    """A store of a process that has the file for itself, and whose writes are all deferred."""

    async def run(self, *operations: Operation) -> list[bytes | None]:
        return await super().run(*map(deferred, operations))


def deferred(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, deferred=True) if isinstance(operation, Put | Add) else operation


class Backend:
    """A backend and its open stores. Servers use real time, the other backends use ``now``."""

    def __init__(self, kind: str, request: pytest.FixtureRequest, path: Path) -> None:
        self.now = 1_000_000.0
        self._kind = kind
        self._path = path / "state.db"
        self._servers: list[ValkeyServer] = []
        if kind == "valkey":
            self._servers = [request.getfixturevalue("valkey")]
        elif kind == "cluster":
            self._servers = request.getfixturevalue("cluster").servers
        self._stores: list[Store] = []

    async def store(self, max_entries: int = 1000, max_bytes: int = 1_000_000_000) -> Store:
        limits: Any = {"max_entries": max_entries, "max_bytes": max_bytes}
        match self._kind:
            case "memory":
                store: Store = MemoryStore(**limits, clock=lambda: self.now)
            case "sqlite" | "exclusive":
                exclusive = self._kind == "exclusive"
                kind = Deferring if exclusive else SqliteStore
                options: Any = {"timeout": PATIENCE, "clock": lambda: self.now, "exclusive": exclusive}
                store = kind(self._path, **limits, **options)
            case _:
                scheme = "valkey" if len(self._servers) == 1 else "valkey+cluster"
                store = await open_store(self._servers[0].url(scheme), **limits, timeout=PATIENCE)
        self._stores.append(store)
        return store

    async def pass_time(self, seconds: float) -> None:
        """Wait until an entry written now with a lifetime of ``seconds`` has expired, also on the servers."""
        self.now += seconds
        for server in self._servers:
            key = key_of(server)
            server.ask("SET", key, b"", "PX", round(seconds * 1000))
            while server.ask("PTTL", key) != -2:
                pass

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


def key_of(server: ValkeyServer) -> str:
    """Return a key for which this server is responsible, found by trying: it may be part of a cluster."""
    from redis.exceptions import MovedError

    for number in range(1000):
        try:
            server.ask("GET", f"key-{number}")
        except MovedError:
            continue
        return f"key-{number}"
    raise AssertionError("no key belongs to this server")


@pytest.fixture
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = Backend(request.param, request, tmp_path)
    yield backend
    await backend.close()


on_every_backend = pytest.mark.parametrize("backend", BACKENDS, indirect=True)
on_shared_backends = pytest.mark.parametrize("backend", SHARED, indirect=True)


@on_every_backend
async def test_results_and_effects_of_each_operation(backend: Backend) -> None:
    store = await backend.store()
    assert await store.run(Get("kind:a")) == [None]
    assert await store.run(Take("kind:a")) == [None]
    assert await store.run(Put("kind:a", b"one")) == [None]
    assert await store.run(Get("kind:a")) == [b"one"]
    assert await store.run(Put("kind:a", b"two")) == [b"one"]
    assert await store.run(Add("kind:a", b"three")) == [b"two"]
    assert await store.run(Get("kind:a")) == [b"two"]
    assert await store.run(Take("kind:a")) == [b"two"]
    assert await store.run(Get("kind:a")) == [None]
    assert await store.run(Add("kind:a", b"four")) == [None]
    assert await store.run(Get("kind:a")) == [b"four"]


@on_every_backend
async def test_operations_of_one_run_see_the_earlier_ones(backend: Backend) -> None:
    store = await backend.store()
    found = await store.run(
        Put("kind:a", b"1"),
        Get("kind:a"),
        Put("kind:a", b"2", ttl=60),
        Get("kind:b"),
        Take("kind:a"),
        Take("kind:a"),
        Add("kind:a", b"3"),
        Add("kind:a", b"4"),
        Put("kind:b", b"5"),
        Get("kind:a"),
    )
    assert found == [None, b"1", b"1", None, b"2", None, None, b"3", None, b"3"]
    assert await store.run(Get("kind:b"), Get("kind:a")) == [b"5", b"3"]


@on_every_backend
async def test_an_empty_run_returns_nothing(backend: Backend) -> None:
    assert await (await backend.store()).run() == []


@on_every_backend
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(b"\r\n$5\r\n*1\r\n\0", id="protocol"),
        pytest.param(random.Random(1).randbytes(3_000_000), id="big"),
    ],
)
async def test_a_value_may_be_any_bytes(backend: Backend, value: bytes) -> None:
    store = await backend.store()
    assert await store.run(Put("kind:a", value, ttl=60), Put("kind:b", b"beside it")) == [None, None]
    assert await store.run(Get("kind:a"), Get("kind:b")) == [value, b"beside it"]
    assert await store.run(Add("kind:a", b"other"), Take("kind:a")) == [value, value]


@on_every_backend
async def test_expired_entries_are_missing(backend: Backend) -> None:
    store = await backend.store()
    passing = [Put(f"kind:{name}", b"passing", ttl=0.05) for name in "gtpa"]
    await store.run(*passing, Add("kind:x", b"passing", ttl=0.05), Put("kind:long", b"long", ttl=3600))
    await backend.pass_time(0.05)
    found = await store.run(
        Get("kind:g"), Take("kind:t"), Put("kind:p", b"new"), Add("kind:a", b"new"), Get("kind:x"), Get("kind:long")
    )
    assert found == [None, None, None, None, None, b"long"]
    assert await store.run(Get("kind:p"), Get("kind:a")) == [b"new", b"new"]


@on_every_backend
async def test_each_put_sets_the_lifetime_again(backend: Backend) -> None:
    store = await backend.store()
    await store.run(Put("kind:a", b"1", ttl=0.05), Put("kind:a", b"2"), Put("kind:b", b"1"), Put("kind:b", b"2", 0.05))
    # Add does not change the lifetime of an existing entry.
    await store.run(Put("kind:c", b"1", ttl=0.05), Add("kind:c", b"2", ttl=3600))
    await backend.pass_time(0.05)
    assert await store.run(Get("kind:a"), Get("kind:b"), Get("kind:c")) == [b"2", None, None]


@on_every_backend
async def test_only_one_of_many_concurrent_takes_succeeds(backend: Backend) -> None:
    store = await backend.store()
    await store.run(Put("kind:a", b"one"))
    found = await asyncio.gather(*(store.run(Take("kind:a")) for _ in range(100)))
    assert found.count([b"one"]) == 1
    assert found.count([None]) == 99


@on_shared_backends
async def test_two_stores_on_one_backend_take_and_add_once(backend: Backend) -> None:
    stores = [await backend.store(), await backend.store()]
    await stores[0].run(*(Put(f"kind:{number}", b"one") for number in range(50)))
    taken = await asyncio.gather(
        *(store.run(Take(f"kind:{number}")) for number in range(50) for store in stores for _ in range(2))
    )
    assert taken.count([b"one"]) == 50
    added = await asyncio.gather(
        *(store.run(Add("kind:first", str(number).encode())) for number in range(50) for store in stores)
    )
    (winner,) = await stores[1].run(Get("kind:first"))
    assert added.count([None]) == 1
    assert added.count([winner]) == 99


@on_every_backend
async def test_concurrent_runs_get_their_own_results(backend: Backend) -> None:
    store = await backend.store(10_000)

    async def one(number: int) -> None:
        mine = str(number).encode()
        key = f"kind:{number}"
        assert await store.run(Put(key, mine), Get(key)) == [None, mine]
        await asyncio.sleep(0)
        assert await store.run(Get(f"{key}:none"), Take(key), Get(key)) == [None, mine, None]

    await asyncio.gather(*(one(number) for number in range(600)))


@on_every_backend
async def test_a_cancelled_run_does_not_affect_the_others(backend: Backend) -> None:
    store = await backend.store()
    tasks = [asyncio.create_task(store.run(Put(f"kind:{number}", b"one"))) for number in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1::2] == [[None]] * 20
    assert await store.run(*(Get(f"kind:{number}") for number in range(1, 40, 2))) == [b"one"] * 20


@on_shared_backends
async def test_an_invalid_key_does_not_affect_other_runs(backend: Backend) -> None:
    store = await backend.store()
    with pytest.raises(StateUnavailable):
        await store.run(Put("kind:\udc80", b"one", ttl=60))
    assert await store.run(Put("kind:a", b"one", ttl=60), Get("kind:a")) == [None, b"one"]


async def write(backend: Backend, store: Store, owner: str, numbers: Iterable[int], size: int = 3) -> None:
    """Write entries one after the other, so that each has a later time than the one before."""
    for number in numbers:
        await store.run(Put(f"kind:{owner}-{number}", bytes(size), 3600, owner))
        backend.now += 1


async def held(store: Store, owner: str, most: int = 100) -> list[int]:
    """Return the numbers of the owner's entries."""
    await asyncio.sleep(0)  # a store that answers from memory learns of evictions in the event loop
    values = await store.run(*(Get(f"kind:{owner}-{number}") for number in range(most)))
    return [number for number, value in enumerate(values) if value is not None]


# A store may hold ``slack`` more than its limit until so much more is written.


@on_every_backend
async def test_the_number_of_entries_stays_near_its_limit(backend: Backend) -> None:
    store = await backend.store(20)
    await store.run(Put("kind:lasting", b"secret"), Put("kind:leased", b"own", ttl=3600))
    order = [*range(60), 20]  # rewriting an entry makes it the newest
    await write(backend, store, "ann", order)
    while len(remaining := await held(store, "ann")) > 20 + slack(20):
        pass
    assert len(remaining) >= 15
    assert remaining == sorted(order[-len(remaining) :])
    assert await store.run(Get("kind:lasting"), Get("kind:leased")) == [b"secret", b"own"]


@on_every_backend
async def test_the_size_of_the_entries_stays_near_its_limit(backend: Backend) -> None:
    store = await backend.store(max_bytes=20_000)
    await store.run(Put("kind:lasting", bytes(50_000)), Put("kind:leased", bytes(50_000), ttl=3600))
    await write(backend, store, "ann", range(60), size=1000)
    while len(remaining := await held(store, "ann")) > 20 + slack(20):
        pass
    assert len(remaining) >= 15
    assert remaining == list(range(60))[-len(remaining) :]
    assert None not in await store.run(Get("kind:lasting"), Get("kind:leased"))


@on_every_backend
async def test_only_who_holds_the_most_entries_loses_some(backend: Backend) -> None:
    store = await backend.store(40)
    await write(backend, store, "ann", range(5))
    await write(backend, store, "bob", range(10), size=500)  # fewer entries, but more bytes
    await write(backend, store, "carl", range(90))
    while len(carls := await held(store, "carl")) > 25 + slack(40):
        pass
    assert len(carls) >= 15
    assert carls == list(range(90))[-len(carls) :]
    assert await held(store, "ann") == list(range(5))
    assert await held(store, "bob") == list(range(10))


@on_every_backend
async def test_only_who_holds_the_most_bytes_loses_some(backend: Backend) -> None:
    store = await backend.store(1000, 40_000)
    await write(backend, store, "ann", range(70), size=10)  # more entries, but fewer bytes
    await write(backend, store, "bob", range(60), size=1000)
    while len(bobs := await held(store, "bob")) > 40 + slack(40):
        pass
    assert len(bobs) >= 30
    assert bobs == list(range(60))[-len(bobs) :]
    assert await held(store, "ann") == list(range(70))


@on_every_backend
async def test_several_large_owners_shrink_to_the_same_size(backend: Backend) -> None:
    store = await backend.store(40)
    for start in range(0, 60, 10):
        for owner in ("ann", "bob"):
            await write(backend, store, owner, range(start, start + 10))
    await write(backend, store, "carl", range(4))
    while len(await held(store, "ann")) + len(await held(store, "bob")) > 36 + slack(40):
        pass
    anns, bobs = await held(store, "ann"), await held(store, "bob")
    assert min(len(anns), len(bobs)) >= 14
    assert abs(len(anns) - len(bobs)) <= 4
    assert anns == list(range(60))[-len(anns) :]
    assert bobs == list(range(60))[-len(bobs) :]
    assert await held(store, "carl") == list(range(4))


@on_every_backend
async def test_removed_and_replaced_entries_do_not_count(backend: Backend) -> None:
    store = await backend.store(30, 30_000)
    await write(backend, store, "ann", range(10), size=100)
    for round_ in range(20):
        await write(backend, store, "bob", range(8), size=100 + round_)
        await store.run(*(Take(f"kind:bob-{number}", "bob") for number in range(4)))
    for _ in range(20):  # enough for a store that counts wrongly to remove entries
        await store.run(Get("kind:ann-0"))
    assert await held(store, "ann") == list(range(10))
    assert await held(store, "bob") == [4, 5, 6, 7]


@on_every_backend
async def test_closing_finishes_pending_runs_and_rejects_later_ones(backend: Backend) -> None:
    store = await backend.store()
    last = asyncio.create_task(store.run(Put("kind:a", b"one")))
    await asyncio.sleep(0)
    await store.close()
    assert await last == [None]
    with pytest.raises(StateUnavailable, match="closed"):
        await store.run(Get("kind:a"))
    await store.close()
