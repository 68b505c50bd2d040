"""Token buckets and counters, on every store: the same results, and never more than the arithmetic allows."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from fractions import Fraction
from math import inf
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openai_dify_proxy.state import Count, Draw, Get, Operation, Put, Store, Take, open_store
from openai_dify_proxy.state.buckets import Level, read_level
from openai_dify_proxy.state.counters import MOST, read_counts
from openai_dify_proxy.state.memory import SWEEP_SECONDS, MemoryStore
from openai_dify_proxy.state.sqlite import SqliteStore
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer
from tests.state.test_contract import BACKENDS, SHARED, Backend, backend

__all__ = ["backend"]

SLOW = 1e-6
"""A rate that gains nothing during a test, in tokens per second: servers use real time."""

names = st.sampled_from(["turns", "tokens", "price:USD", 'app "ö"|turns', "a/b"])
amounts = st.integers(0, 10**15)
draws = st.builds(
    Draw, st.sampled_from(["bucket:a", "bucket:b"]), st.just(SLOW), st.just(10.0), st.integers(0, 12), st.booleans()
)
counts = st.builds(
    Count,
    st.sampled_from(["usage:a", "usage:b"]),
    st.just(1000.0),
    st.lists(st.tuples(names, amounts), max_size=4).map(tuple),
)


def model(runs: Sequence[Operation]) -> list[object]:
    """Return the expected results, by another arithmetic than the stores': fractions and plain sums."""
    missing: dict[str, Fraction] = {}
    sums: dict[str, dict[str, int]] = {}
    results: list[object] = []
    for operation in runs:
        if isinstance(operation, Draw):
            before = missing.get(operation.key, Fraction(0))
            allowed = operation.forced or before + Fraction(operation.amount) <= operation.burst
            missing[operation.key] = before + Fraction(operation.amount) * allowed
            results.append((allowed, round(missing[operation.key])))
        elif isinstance(operation, Count):
            entry = sums.setdefault(operation.key, {})
            for name, amount in operation.amounts:
                entry[name] = entry.get(name, 0) + amount
            results.append(dict(entry))
    return results


def shown(operation: Operation, result: bytes | None) -> object:
    if isinstance(operation, Draw):
        level = read_level(result)
        return (level.allowed, round(level.missing))
    return read_counts(result)


@given(runs=st.lists(draws | counts, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_memory_and_sqlite_compute_the_same(runs: list[Operation]) -> None:
    async def results(store: Store) -> list[object]:
        found = [shown(operation, (await store.run(operation))[0]) for operation in runs]
        await store.close()
        return found

    with tempfile.TemporaryDirectory() as folder:
        sqlite = SqliteStore(Path(folder) / "state.db", max_entries=100, timeout=PATIENCE)
        assert asyncio.run(results(MemoryStore(max_entries=100))) == model(runs)
        assert asyncio.run(results(sqlite)) == model(runs)


@given(runs=st.lists(draws | counts, min_size=1, max_size=30))
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_valkey_computes_the_same(valkey: ValkeyServer, runs: list[Operation]) -> None:
    async def results() -> list[bytes | None]:
        store = await open_store(valkey.url(), max_entries=100, timeout=PATIENCE)
        try:
            return await store.run(*runs)
        finally:
            await store.close()

    valkey.ask("FLUSHALL")
    found = asyncio.run(results())
    assert [shown(operation, result) for operation, result in zip(runs, found, strict=True)] == model(runs)


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=60),
)
@settings(deadline=None, derandomize=True, database=None)
def test_never_more_than_the_rate_and_the_burst(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    now = start = 1_000_000.0
    store = MemoryStore(max_entries=10, clock=lambda: now)
    admitted: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        (result,) = asyncio.run(store.run(Draw("bucket:a", rate, burst, amount)))
        if read_level(result).allowed:
            admitted.append((now, amount))
    for number, (since, _) in enumerate(admitted):
        for end, (until, _) in enumerate(admitted[number:], number + 1):
            within = sum(amount for _, amount in admitted[number:end])
            assert within <= burst + rate * (until - since + 2e-6) + 1e-6
    assert now >= start


@pytest.mark.parametrize("backend", ["memory", "sqlite"], indirect=True)
async def test_a_bucket_fills_with_time(backend: Backend) -> None:
    store = await backend.store()
    draw = Draw("bucket:a", rate=0.5, burst=10)
    levels = [read_level((await store.run(draw))[0]) for _ in range(11)]
    assert levels == [*(Level(True, number) for number in range(1, 11)), Level(False, 10)]
    backend.now += 3.0
    assert read_level((await store.run(Draw("bucket:a", 0.5, 10, 0)))[0]) == Level(True, 8.5)
    assert [read_level((await store.run(draw))[0]).allowed for _ in range(2)] == [True, False]
    backend.now += 19.0
    assert await store.run(Get("bucket:a")) == [None]  # a full bucket needs no entry


async def test_a_bucket_on_a_server_fills_with_time(valkey: ValkeyServer) -> None:
    store = await open_store(valkey.url(), max_entries=10, timeout=PATIENCE)
    hour_ago = f"8 {round((time.time() - 3600) * 1e6)}"
    valkey.ask("SET", "openai-dify-proxy:bucket:a", hour_ago)
    level = read_level((await store.run(Draw("bucket:a", 1 / 1800, 10, 0)))[0])
    assert level.allowed
    assert 6 - PATIENCE / 1800 < level.missing <= 6
    valkey.ask("SET", "openai-dify-proxy:bucket:a", f"8 {round((time.time() + 3600) * 1e6)}")  # another clock
    assert read_level((await store.run(Draw("bucket:a", 1 / 1800, 10, 1)))[0]) == Level(True, 9)
    assert 0 < valkey.ask("PTTL", "openai-dify-proxy:bucket:a") <= 9 * 1800 * 1000
    await store.close()


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
async def test_a_forced_draw_makes_a_debt(backend: Backend) -> None:
    store = await backend.store()
    results = await store.run(Draw("bucket:a", SLOW, 10, 500, forced=True), Draw("bucket:a", SLOW, 10))
    assert [(level.allowed, round(level.missing)) for level in map(read_level, results)] == [(True, 500), (False, 500)]


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
async def test_counts_are_exact_and_stop_at_the_largest_number(backend: Backend) -> None:
    store = await backend.store()
    odd = 2**53 + 1
    await store.run(Count("usage:a", 100, (("tokens", odd), ('app "ö"', 1))))
    (result,) = await store.run(Count("usage:a", 100, (("tokens", odd),)))
    assert read_counts(result) == {"tokens": 2 * odd, 'app "ö"': 1}
    (result,) = await store.run(Count("usage:a", 100, (("tokens", MOST),)))
    assert read_counts(result)["tokens"] == MOST
    assert read_counts((await store.run(Count("usage:a", 100)))[0])["tokens"] == MOST
    assert await store.run(Count("usage:b", 100)) == [b"{}"]
    assert await store.run(Get("usage:b")) == [None]  # reading creates no entry


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
async def test_counts_expire(backend: Backend) -> None:
    store = await backend.store()
    await store.run(Count("usage:a", 0.05, (("turns", 1),)))
    await backend.pass_time(0.05)
    assert await store.run(Count("usage:a", 0.05)) == [b"{}"]


@pytest.mark.parametrize("backend", SHARED, indirect=True)
async def test_processes_draw_from_one_bucket_and_add_to_one_count(backend: Backend) -> None:
    stores = [await backend.store() for _ in range(3)]

    async def work(store: Store) -> int:
        allowed = 0
        for _ in range(20):
            drawn, _ = await store.run(Draw("bucket:a", SLOW, 25), Count("usage:a", 1000, (("turns", 1),)))
            allowed += read_level(drawn).allowed
        return allowed

    assert sum(await asyncio.gather(*(work(store) for store in stores))) == 25
    assert read_counts((await stores[0].run(Count("usage:a", 1000)))[0]) == {"turns": 60}


@pytest.mark.parametrize("backend", ["memory", "sqlite"], indirect=True)
@pytest.mark.parametrize("damaged", [b"", b"x y", b"nan", b'{"turns": "many"}', b"\xff"])
async def test_a_damaged_entry_counts_as_absent(backend: Backend, damaged: bytes) -> None:
    store = await backend.store()
    await store.run(Put("bucket:a", damaged), Put("usage:a", damaged))
    drawn, counted = await store.run(Draw("bucket:a", SLOW, 10), Count("usage:a", 100, (("turns", 1),)))
    assert read_level(drawn) == Level(True, 1)
    assert read_counts(counted) == {"turns": 1}


async def test_a_damaged_bucket_on_a_server_counts_as_absent(valkey: ValkeyServer) -> None:
    async with AsyncExitStack() as stack:
        store = await open_store(valkey.url(), max_entries=10, timeout=PATIENCE)
        stack.push_async_callback(store.close)
        valkey.ask("SET", "openai-dify-proxy:bucket:a", "x y")
        assert read_level((await store.run(Draw("bucket:a", SLOW, 10)))[0]) == Level(True, 1)


async def test_memory_forgets_expired_counts_without_further_writes_to_them() -> None:
    now = 0.0
    store = MemoryStore(max_entries=10, clock=lambda: now)
    await store.run(*(Count(f"usage:{number}", 10, (("turns", 1),)) for number in range(50)))
    now = SWEEP_SECONDS
    await store.run(Take("other:a"))
    assert not store._entries


def test_levels_of_unknown_bytes_are_errors() -> None:
    assert read_level(b"1 inf") == Level(True, inf)
    for other in (None, b"", b"1", b"x"):
        with pytest.raises(ValueError, match="float"):
            read_level(other)
