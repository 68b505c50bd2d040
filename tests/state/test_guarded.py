"""A failing state store costs one timeout, then nothing until it is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.state import Get, GuardedStore, Put, Store, open_store
from openai_dify_proxy.state.memory import MemoryStore
from tests.state.servers import ValkeyServer

TIMEOUT = 0.6
"""The time limit of a run, in seconds."""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(own_valkey: ValkeyServer) -> AsyncIterator[Store]:
    store = await open_store(own_valkey.url(), max_entries=1000, timeout=TIMEOUT)
    await store.run(Put("kind:a", b"one"))
    yield store
    await store.close()


async def test_results_of_a_working_store_are_returned() -> None:
    guarded = GuardedStore(MemoryStore(max_entries=10))
    assert await guarded.run(Put("kind:a", b"one"), Get("kind:a")) == [None, b"one"]
    assert await guarded.run() == []
    assert guarded.faults == 0
    await guarded.close()


async def test_a_slow_store_costs_one_timeout_and_is_tried_again_after_the_pause(
    own_valkey: ValkeyServer, store: Store
) -> None:
    clock = Clock()
    guarded = GuardedStore(store, pause=2, clock=clock)
    with capture_logs() as logs:
        with own_valkey.frozen():
            began = time.monotonic()
            assert await guarded.run(Get("kind:a")) is None
            waited = time.monotonic() - began
            assert waited >= TIMEOUT
            clock.now += 1.9
            assert [await guarded.run(Get("kind:a")) for _ in range(100)] == [None] * 100
            # If each run had waited, this would take a hundred times as long.
            assert time.monotonic() - began < waited + 10
        clock.now += 0.1
        assert await guarded.run(Get("kind:a")) == [b"one"]
    assert guarded.faults == 101
    assert logs == [
        {"event": "state_unavailable", "log_level": "warning", "reason": "no answer within 0.6 s", "faults": 1}
    ]


async def test_during_a_new_attempt_other_runs_fail_at_once(own_valkey: ValkeyServer, store: Store) -> None:
    clock = Clock()
    guarded = GuardedStore(store, pause=2, clock=clock)
    with own_valkey.frozen():
        assert await guarded.run(Get("kind:a")) is None
    clock.now += 2
    asking = asyncio.create_task(guarded.run(Get("kind:a")))
    await asyncio.sleep(0)
    assert await guarded.run(Get("kind:a")) is None
    assert not asking.done()
    assert await asking == [b"one"]
    assert await guarded.run(Get("kind:a")) == [b"one"]
    assert guarded.faults == 2


async def test_concurrent_failures_are_all_counted_and_logged_once_per_pause(
    own_valkey: ValkeyServer, store: Store
) -> None:
    clock = Clock()
    guarded = GuardedStore(store, pause=2, clock=clock)
    own_valkey.kill()
    with capture_logs() as logs:
        assert await asyncio.gather(*(guarded.run(Put("kind:secret", b"secret")) for _ in range(20))) == [None] * 20
        assert guarded.faults == 20
        assert len(logs) == 1
        clock.now += 2
        assert await guarded.run(Get("kind:a")) is None
    assert [line["event"] for line in logs] == ["state_unavailable"] * 2
    assert "secret" not in str(logs)
    assert str(own_valkey.port) in logs[1]["reason"]


async def test_a_late_reply_reaches_no_other_run(own_valkey: ValkeyServer, store: Store) -> None:
    clock = Clock()
    guarded = GuardedStore(store, pause=2, clock=clock)
    with own_valkey.frozen():
        assert await guarded.run(Put("kind:late", b"late")) is None
    clock.now += 2
    # The abandoned run completes before this one, which receives its own results.
    assert await guarded.run(Get("kind:a"), Get("kind:late")) == [b"one", b"late"]


async def test_after_a_cancelled_attempt_the_next_run_tries_again(own_valkey: ValkeyServer, store: Store) -> None:
    clock = Clock()
    guarded = GuardedStore(store, pause=2, clock=clock)
    with own_valkey.frozen():
        assert await guarded.run(Get("kind:a")) is None
        clock.now += 2
        asking = asyncio.create_task(guarded.run(Get("kind:a")))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await guarded.run(Get("kind:a")) == [b"one"]
