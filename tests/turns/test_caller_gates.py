"""The concurrent turns of a caller, which its key limits over all Difys."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.errors import RateLimited
from openai_dify_proxy.keys.limits import NO_LIMITS, KeyLimits
from openai_dify_proxy.settings.values import MAX_CONCURRENT
from openai_dify_proxy.state import GuardedStore, open_store
from openai_dify_proxy.turns.admission import caller_gates
from openai_dify_proxy.turns.admission.caller_gates import CallerGates
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.gates import enter_all, try_enter_all
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.admission.slots import UNLIMITED
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import ConnectedClient
from tests.limits import PATIENCE
from tests.turns.gates import LEASE, URL

LINE = Line("key-a", None)


def caller(limit: int | None, name: str = "key-a") -> Caller:
    return Caller(name, limits=NO_LIMITS if limit is None else KeyLimits(concurrent_turns=limit))


def unshared(_name: str) -> Share | None:
    return None


def gate_of(gates: CallerGates, limit: int, name: str = "key-a") -> Gate:
    gate = gates.of(caller(limit, name))
    assert gate is not None
    return gate


def dify(limit: int) -> Gate:
    return Gate(URL, limit=limit, max_queued=10, share=None)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


def waiting(gates: list[Gate], wait: TurnWait | None = None) -> asyncio.Task[object]:
    return asyncio.create_task(enter_all(gates, LINE, ConnectedClient(), wait or TurnWait(PATIENCE)))


async def test_a_caller_without_a_limit_has_no_gate() -> None:
    gates = CallerGates(10, unshared)
    assert gates.of(caller(None)) is None
    assert try_enter_all(()) is UNLIMITED


async def test_what_the_limit_of_a_key_holds_back_has_no_slot_of_dify() -> None:
    own, shared = gate_of(CallerGates(10, unshared), 1), dify(5)
    first = try_enter_all([own, shared])
    assert first is not None
    second = waiting([own, shared])
    await until(lambda: own.queued == 1)
    assert (shared.in_use, shared.queued) == (1, 0)
    first.leave()
    await second
    assert (own.in_use, shared.in_use) == (1, 1)


async def test_a_slot_of_the_caller_is_free_with_that_of_dify() -> None:
    own, shared = gate_of(CallerGates(10, unshared), 2), dify(1)
    slot = try_enter_all([own, shared])
    assert slot is not None
    assert try_enter_all([own, shared]) is None  # Dify is full
    assert own.in_use == 1
    slot.hold()
    slot.leave()
    assert (own.in_use, shared.in_use) == (1, 1)
    slot.leave()
    assert (own.in_use, shared.in_use) == (0, 0)


async def test_a_turn_that_gets_no_slot_of_dify_leaves_that_of_its_caller() -> None:
    own, shared = gate_of(CallerGates(10, unshared), 2), dify(1)
    holder = try_enter_all([shared])
    assert holder is not None
    turn = waiting([own, shared])
    await until(lambda: shared.queued == 1)
    assert own.in_use == 1
    turn.cancel()
    await asyncio.wait([turn])
    assert (own.in_use, shared.queued) == (0, 0)


async def test_a_caller_beyond_its_line_gets_a_429() -> None:
    own = gate_of(CallerGates(1, unshared), 1)
    assert own.try_enter() is not None
    turn = waiting([own])
    await until(lambda: own.queued == 1)
    with pytest.raises(RateLimited) as full:
        await waiting([own])
    assert full.value.code == "rate_limit_exceeded"
    assert full.value.retry_after is not None
    assert full.value.retry_after >= 1
    turn.cancel()


async def test_a_caller_that_waits_too_long_gets_a_429() -> None:
    own = gate_of(CallerGates(1, unshared), 1)
    assert own.try_enter() is not None
    with pytest.raises(RateLimited, match=r"as many turns at once as it may for 0\.01 s"):
        await waiting([own], TurnWait(0.01))


async def test_a_changed_limit_counts_at_once() -> None:
    gates = CallerGates(10, unshared)
    own = gate_of(gates, 1)
    assert own.try_enter() is not None
    turn = waiting([own])
    await until(lambda: own.queued == 1)
    assert gate_of(gates, 2) is own
    await turn
    assert gate_of(gates, 10**9).limit == MAX_CONCURRENT
    assert gate_of(gates, 1).try_enter() is None


async def test_gates_without_turns_are_dropped_beyond_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_gates, "MAX_GATES", 3)
    gates = CallerGates(10, unshared)
    busy = gate_of(gates, 1, "busy")
    assert busy.try_enter() is not None
    for number in range(20):
        gate_of(gates, 1, f"key-{number}")
        assert len(gates) <= 3
    assert gate_of(gates, 1, "busy") is busy


async def test_processes_share_the_limit_of_a_caller(tmp_path: object) -> None:
    stores = [
        GuardedStore(await open_store(f"sqlite:///{tmp_path}/state.db", max_entries=100, timeout=PATIENCE))
        for _ in range(2)
    ]
    one, other = (
        CallerGates(10, lambda name, store=store, owner=owner: Share(store, name, owner, workers=1, lease=LEASE))  # type: ignore[misc]
        for store, owner in zip(stores, (b"one-----", b"other---"), strict=True)
    )
    slots = [await waiting([gate_of(one, 2)]) for _ in range(2)]
    turn = waiting([gate_of(other, 2)])
    await until(lambda: gate_of(other, 2).queued == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(turn), 0.5)
    slots.pop().leave()  # type: ignore[attr-defined]
    await turn
    assert gate_of(one, 2).in_use + gate_of(other, 2).in_use == 2
    for gates in (one, other):
        await gates.close()
    for store in stores:
        await store.close()
