"""Several processes share the slots of a Dify over the state: SQLite and Valkey."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from openai_dify_proxy.state import GuardedStore, StateUnavailable
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Operation
from tests.api.raw_client import until
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program
from tests.turns.gates import SharingGate, open_gate

Open = Callable[[int], Awaitable[SharingGate]]


@pytest.fixture(params=["sqlite", "valkey"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    server: ValkeyServer = request.getfixturevalue("valkey")
    return server.url()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
        yield server


@pytest.fixture
async def gates(state_url: str) -> AsyncIterator[Open]:
    """Open a gate as a process of its own would: ``await gates(limit)``."""
    async with AsyncExitStack() as stack:

        async def start(limit: int) -> SharingGate:
            gate = await open_gate(state_url, limit)
            stack.push_async_callback(gate.close)
            return gate

        yield start


async def test_processes_share_the_slots_and_never_have_more(gates: Open) -> None:
    """Three processes with twenty turns each; a turn ends as soon as another of any process has started."""
    limit, running, most = 4, 0, 0
    started = asyncio.Semaphore(0)

    async def turn(gate: SharingGate) -> None:
        nonlocal running, most
        slot = await gate.enter()
        running += 1
        most = max(most, running)
        started.release()
        await asyncio.sleep(0.01)
        running -= 1
        slot.leave()

    opened = [await gates(limit) for _ in range(3)]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for gate in opened * 20:
            group.create_task(turn(gate))
    assert most == limit


async def test_a_process_gives_up_slots_for_one_that_has_none(gates: Open) -> None:
    one, other = await gates(4), await gates(4)
    for _ in range(4):
        await one.enter()
    more = [asyncio.create_task(one.enter()) for _ in range(4)]
    waiting = [asyncio.create_task(other.enter()) for _ in range(2)]
    async with asyncio.timeout(PATIENCE):
        while not all(task.done() for task in waiting):
            if len(one.slots) > 2:
                one.leave()
            await asyncio.sleep(0.05)
    for task in more:
        task.cancel()
    await asyncio.gather(*more, return_exceptions=True)


async def test_unused_slots_do_not_keep_others_waiting(gates: Open) -> None:
    """A process keeps the slots of ended turns for its next ones, until another wants them."""
    one, other = await gates(4), await gates(4)
    for _ in range(4):
        await one.enter()
    for _ in range(4):
        one.leave()
    async with asyncio.timeout(PATIENCE):
        for _ in range(4):
            await other.enter()


async def test_a_closed_process_frees_its_slots(gates: Open) -> None:
    one, other = await gates(2), await gates(2)
    for _ in range(2):
        await one.enter()
    await one.gate.close()
    async with asyncio.timeout(PATIENCE):
        await other.enter()
        await other.enter()


async def test_a_killed_process_frees_its_slots(gates: Open, state_url: str) -> None:
    here = await gates(3)
    command = (sys.executable, "-m", "tests.turns.gates", state_url, "3")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    waiting = asyncio.create_task(here.enter())
    done, _ = await asyncio.wait([waiting], timeout=1.0)
    assert not done
    process.kill()
    await process.wait()
    async with asyncio.timeout(PATIENCE):
        await waiting
        await here.enter()
        await here.enter()


class BreakableStore(MemoryStore):
    """A store in memory that several gates share, and that can be made unavailable. It counts its runs."""

    down = False
    runs = 0

    async def run(self, *operations: Operation) -> list[bytes | None]:
        self.runs += 1
        if self.down:
            raise StateUnavailable("down")
        return await super().run(*operations)


async def test_turns_need_no_round_trip_of_their_own() -> None:
    store = BreakableStore(max_entries=1000)
    gate = SharingGate(GuardedStore(store), 8)
    (await gate.enter()).leave()
    runs = store.runs
    for _ in range(1000):
        slot = gate.gate.try_enter()
        assert slot is not None
        slot.leave()
    assert store.runs == runs
    await gate.close()


async def test_without_the_state_a_process_keeps_its_share() -> None:
    store = BreakableStore(max_entries=1000)
    one, other = SharingGate(GuardedStore(store), 4), SharingGate(GuardedStore(store), 4)
    await one.enter()
    await other.enter()
    store.down = True
    async with asyncio.timeout(PATIENCE):
        for gate in (one, other):
            while len(gate.slots) < 2:
                await gate.enter()
    assert len(one.slots) == len(other.slots) == 2
    await one.gate.close()
    await other.close()


async def test_without_the_state_processes_share_what_was_free() -> None:
    """None knows whether another has used a free slot since, so none takes one before all leases have ended."""
    store = BreakableStore(max_entries=1000)
    gates = [SharingGate(GuardedStore(store), 10) for _ in range(2)]
    for gate in gates:
        await gate.enter()
    await until(lambda: all(gate.gate.used_by_others for gate in gates))
    store.down = True
    turns = [asyncio.create_task(gate.enter()) for gate in gates for _ in range(10)]
    await until(lambda: sum(turn.done() for turn in turns) == 8)
    await asyncio.wait(turns, timeout=0.5)
    assert [len(gate.slots) for gate in gates] == [5, 5]
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)
    await gates[0].gate.close()
    await gates[1].close()


@pytest.mark.parametrize(("workers", "share"), [(1, 4), (2, 2), (9, 1)])
async def test_a_process_that_never_reached_the_state_takes_its_part(workers: int, share: int) -> None:
    store = BreakableStore(max_entries=1000)
    store.down = True
    gate = SharingGate(GuardedStore(store), 4, workers=workers)
    async with asyncio.timeout(PATIENCE):
        for _ in range(share):
            await gate.enter()
    more = asyncio.create_task(gate.enter())
    done, _ = await asyncio.wait([more], timeout=0.5)
    assert not done
    store.down = False
    async with asyncio.timeout(PATIENCE):
        if share < 4:
            await more  # it now has all slots
    more.cancel()
    await asyncio.gather(more, return_exceptions=True)
    await gate.close()
