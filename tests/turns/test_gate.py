"""The gate of one Dify: its slots, its queue, and what waiting turns leave behind."""

from __future__ import annotations

import asyncio
import gc

import pytest
from msgspec import json

from openai_dify_proxy.errors import QueueFull, QueueTimeout
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import Client, ClientDisconnected, ConnectedClient
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy_demo import DemoServer
from tests.api.raw_client import until
from tests.limits import PATIENCE
from tests.turns.gates import URL, SharingGate, no_probe

CALLER = Line("caller", None)


def gate_of(limit: int, *, max_queued: int = 10) -> Gate:
    """Return a gate that shares nothing."""
    return Gate(URL, limit=limit, max_queued=max_queued, probe=no_probe, share=None)


async def enter(gate: Gate, line: Line = CALLER, *, client: Client | None = None, limit: float = PATIENCE) -> Slot:
    return gate.try_enter() or await gate.wait(line, client or ConnectedClient(), TurnWait(limit))


async def until_queued(gate: Gate, count: int) -> None:
    await until(lambda: gate.queued == count)


class GoneClient(ConnectedClient):
    """A client that disconnects as soon as its turn is queued."""

    def on_disconnect(self, callback: object) -> None:
        assert callable(callback)
        callback()


async def test_a_cancelled_turn_gets_no_slot() -> None:
    """Its slot is free at once, before its task runs again."""
    gate = gate_of(1)
    running = await enter(gate)
    cancelled, next_one = asyncio.create_task(enter(gate)), asyncio.create_task(enter(gate))
    await until_queued(gate, 2)
    cancelled.cancel()
    running.leave()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    (await next_one).leave()
    assert gate.in_use == gate.queued == 0


async def test_a_turn_cancelled_with_its_slot_leaves_it() -> None:
    gate = gate_of(1)
    running = await enter(gate)
    cancelled = asyncio.create_task(enter(gate))
    await until_queued(gate, 1)
    running.leave()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert gate.in_use == gate.queued == 0


class CancellingStore(MemoryStore):
    """Cancels ``task`` when a run has ended, before its caller learns that."""

    task: asyncio.Task[Slot] | None = None

    async def run(self, *operations: Operation) -> list[bytes | None]:
        results = await super().run(*operations)
        if self.task is not None:
            self.task.cancel()
            self.task = None
        return results


async def test_a_turn_cancelled_while_slots_are_acquired_does_not_stop_others() -> None:
    store = CancellingStore(max_entries=1000)
    sharing = SharingGate(GuardedStore(store), 1)
    store.task = cancelled = asyncio.create_task(sharing.enter())
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    async with asyncio.timeout(PATIENCE):
        (await sharing.enter()).leave()
    assert sharing.gate.in_use == 0
    await sharing.gate.close()


async def test_turns_with_a_free_slot_do_not_fill_the_queue() -> None:
    """Before the first lease all turns wait for the state; ten come where eight may run and two may wait."""
    store = GuardedStore(MemoryStore(max_entries=1000))
    gate = Gate(URL, limit=8, max_queued=2, probe=no_probe, share=Share(store, URL, b"process", workers=1))
    entering = [asyncio.create_task(enter(gate)) for _ in range(10)]
    await asyncio.sleep(0)  # their tasks start
    assert gate.queued == 10
    with pytest.raises(QueueFull):
        await enter(gate)
    async with asyncio.timeout(PATIENCE):
        for task in entering:
            (await task).leave()
    await gate.close()


async def test_a_caller_cannot_close_the_queue_to_others() -> None:
    gate = gate_of(1, max_queued=4)
    running = await enter(gate)
    waiting = [asyncio.create_task(enter(gate, Line("many", str(number)))) for number in range(4)]
    await until_queued(gate, 4)
    with pytest.raises(QueueFull) as full:
        await enter(gate, Line("many", "4"))
    assert str(full.value.message) == (
        f"The queue for Dify is full (4 waiting). Send the request again in {full.value.retry_after} s."
    )
    waiting += [asyncio.create_task(enter(gate, Line("other", str(number)))) for number in range(2)]
    await until_queued(gate, 6)
    with pytest.raises(QueueFull):
        await enter(gate, Line("other", "2"))
    running.leave()
    async with asyncio.timeout(PATIENCE):
        for task in asyncio.as_completed(waiting):
            (await task).leave()


@pytest.mark.parametrize(
    ("client", "limit", "error"),
    [(ConnectedClient(), 0.0, QueueTimeout), (GoneClient(), PATIENCE, ClientDisconnected)],
    ids=["timeout", "disconnected"],
)
async def test_a_turn_that_leaves_the_queue_makes_no_reference_cycle(
    client: Client, limit: float, error: type[Exception]
) -> None:
    gate = gate_of(1)
    running = await enter(gate)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with pytest.raises(error):
                await enter(gate, client=client, limit=limit)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [item for item in gc.garbage if isinstance(item, error)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert gate.queued == 0
    running.leave()


async def test_the_limit_is_probed_again_after_a_fault_of_a_probe() -> None:
    probes = 0
    again = asyncio.Event()

    async def probe() -> int:
        nonlocal probes
        probes += 1
        if probes == 1:
            raise RuntimeError("a fault")
        again.set()
        return 0

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it reports the fault
    http = HttpClient(connect_timeout=PATIENCE)
    gate = Gate(URL, limit=None, max_queued=10, probe=probe, share=None)
    with DemoServer() as server:
        app, body = DifyApp(server.url, "app-demo-chat"), {"inputs": {}, "query": "SLOW:1000x100", "user": "u"}
        exchanges = []
        for _ in range(gate.limit):
            slot = await enter(gate)
            data = json.encode({**body, "response_mode": "streaming"})
            exchange = await DifyClient(http).generate(app, "/chat-messages", data)
            slot.attach(exchange)
            await exchange.wait()
            exchanges.append(exchange)
        waiting = asyncio.create_task(enter(gate))
        async with asyncio.timeout(PATIENCE):
            await again.wait()
        waiting.cancel()
        for exchange in exchanges:
            exchange.close()
        await gate.close()
        await http.close()
    assert probes == 2
