"""Leases of slots among processes, on entries in memory and with a clock that the test moves."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest
from msgspec import msgpack

from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.turns.admission.leases import LEASE_SECONDS, Demand, LeaseTable

URL = "http://dify.example/v1"


class State:
    def __init__(self) -> None:
        self.now = 1000.0
        self.entries: OrderedDict[str, Entry] = OrderedDict()

    def run(self, operations: list[Operation]) -> list[bytes | None]:
        return apply(operations, self.entries, self.now)


class Process:
    """A process with ``use`` turns in Dify and ``queued`` ones that wait."""

    def __init__(self, state: State, name: str) -> None:
        self.state = state
        self.table = LeaseTable(URL, name.encode())
        self.use = self.queued = 0
        self.since: float | None = None

    def sync(self, limit: int, *, spare: int = 0, publish: int | None = None) -> None:
        demand = Demand(self.use, self.use + self.queued + spare, self.since if self.queued else None)
        if undo := self.table.read(self.state.run(self.table.plan(demand, limit, publish=publish))):
            self.state.run(undo)

    def start(self, limit: int) -> None:
        """Start as many waiting turns as the leases allow."""
        while self.queued and self.use < self.table.allowed(limit, self.since):
            self.queued -= 1
            self.use += 1
            self.since = self.state.now

    def ask(self, count: int) -> None:
        if not self.queued:
            self.since = self.state.now
        self.queued += count


@pytest.fixture
def state() -> State:
    return State()


def settle(processes: list[Process], limit: int, rounds: int = 12) -> None:
    """Let the processes synchronize, start waiting turns, and end turns beyond their share at once."""
    for _ in range(rounds):
        for process in processes:
            process.state.now += 0.1
            process.sync(limit)
            process.start(limit)
            process.use = min(process.use, process.table.allowed(limit, process.since))


def test_one_process_gets_all_slots_at_once(state: State) -> None:
    one = Process(state, "one")
    one.ask(20)
    one.sync(8)
    assert one.table.owned == set(range(8))
    assert one.table.allowed(8) == 8


def test_spare_slots_and_no_more(state: State) -> None:
    one = Process(state, "one")
    one.use = 2
    one.sync(8, spare=1)
    assert len(one.table.owned) == 3
    one.use = 0
    one.sync(8, spare=1)
    assert len(one.table.owned) == 1
    assert len(state.entries) == 1


def test_all_give_up_their_slots(state: State) -> None:
    one = Process(state, "one")
    one.ask(5)
    one.sync(8)
    state.run(one.table.give_up_all())
    assert not state.entries
    assert one.table.allowed(8) == 0


def test_two_processes_divide_the_slots(state: State) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    one.ask(30)
    settle([one, other], 8)
    assert one.use == 8
    other.ask(30)
    settle([one, other], 8)
    assert (one.use, other.use) == (4, 4)


def test_a_process_that_wants_little_gets_only_that(state: State) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    one.ask(30)
    settle([one, other], 8)
    other.ask(1)
    settle([one, other], 8)
    assert (one.use, other.use) == (7, 1)


def test_more_processes_than_slots_take_turns(state: State) -> None:
    """The process whose turns have waited longest is next."""
    processes = [Process(state, str(number)) for number in range(5)]
    served = dict.fromkeys(range(5), 0)
    for process in processes:
        process.ask(1000)
    for _ in range(100):
        for number, process in enumerate(processes):
            state.now += 0.1
            before = process.queued
            process.sync(2)
            process.start(2)
            served[number] += before - process.queued
            process.use = 0  # each turn ends before the next synchronization
    assert sum(served.values()) > 50
    assert min(served.values()) > 0.5 * max(served.values())


def test_slots_of_a_dead_process_are_free_when_its_leases_expire(state: State) -> None:
    dead, other = Process(state, "dead"), Process(state, "other")
    dead.ask(8)
    dead.sync(8)
    other.ask(8)
    other.sync(8)
    assert other.table.allowed(8) == 0
    assert other.table.entitled(8) == 0
    state.now += LEASE_SECONDS
    other.sync(8)
    other.sync(8)
    assert other.table.allowed(8) == 8


def test_leases_are_renewed(state: State) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    one.use = 8
    for _ in range(10):
        one.sync(8)
        state.now += LEASE_SECONDS / 2
    other.ask(1)
    other.sync(8)
    assert other.table.allowed(8) == 0


@pytest.mark.parametrize("use", [8, 0], ids=["renews", "gives up"])
def test_a_suspended_process_takes_no_slot_from_others(state: State, use: int) -> None:
    suspended, other = Process(state, "suspended"), Process(state, "other")
    suspended.ask(8)
    suspended.sync(8)
    state.now += LEASE_SECONDS
    other.use = 3
    other.sync(8)
    suspended.queued, suspended.use = 0, use
    suspended.sync(8)
    other.sync(8)
    assert len(other.table.owned) == 3
    assert not suspended.table.owned & other.table.owned


def test_a_lower_limit_frees_the_highest_numbers(state: State) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    other.use = 2
    other.sync(10)
    one.use = 8
    one.sync(10)
    one.sync(10)
    assert one.table.owned == set(range(2, 10))
    assert one.table.allowed(8) == 6
    one.use = 6
    one.sync(8)
    assert one.table.owned == set(range(2, 8))


def test_limits_are_shared(state: State) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    one.sync(8)
    assert one.table.shared_limit is None
    one.sync(9, publish=9)
    other.table.read(state.run(other.table.poll()))
    assert other.table.shared_limit == 9
    state.now += 60
    other.sync(9)
    assert other.table.shared_limit is None


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x91" * 5000])
def test_damaged_entries_count_as_absent(state: State, damage: bytes) -> None:
    one, other = Process(state, "one"), Process(state, "other")
    one.ask(9)
    one.sync(8, publish=8)
    other.ask(1)
    other.sync(8)
    other.sync(8)
    damaged = [key for key in state.entries if key.endswith((":wanted", ":limit"))]
    assert len(damaged) == 2
    for key in damaged:
        state.entries[key] = Entry(damage, None, state.now, "")
    one.sync(8)
    assert one.table.wanted is None
    assert one.table.shared_limit is None


@pytest.mark.parametrize("limit", [-1, 0, 7, 1001, 2**40, 8.0, "8"])
def test_limits_that_no_process_finds_count_as_absent(state: State, limit: object) -> None:
    one = Process(state, "one")
    one.sync(8, publish=8)
    (key,) = (key for key in state.entries if key.endswith(":limit"))
    state.entries[key] = Entry(msgpack.encode(limit), None, state.now, "")
    one.sync(8)
    assert one.table.shared_limit is None


@pytest.mark.parametrize(
    "wanted",
    [
        (b"other", -1, 1, 0.0),
        (b"other", 0, -100, 0.0),
        (b"other", 0, 2**40, 0.0),
        (b"other", 0, 1, float("nan")),
        (b"other", 0, 1, float("inf")),
        (b"other", 0, 1, float("-inf")),
    ],
)
def test_wishes_that_no_process_has_count_as_absent(wanted: tuple[object, ...]) -> None:
    table = LeaseTable(URL, b"one")
    table.poll()
    table.read([msgpack.encode(wanted), None])
    assert table.wanted is None


@pytest.mark.parametrize("seed", range(8))
def test_all_together_never_use_more_than_the_limit(seed: int) -> None:
    """Processes come and end turns in any order; no slot has two owners, and each process uses only its own slots."""
    chance = random.Random(seed)
    state = State()
    processes = [Process(state, str(number)) for number in range(chance.randint(2, 6))]
    limit = chance.randint(1, 9)
    for _ in range(300):
        process = chance.choice(processes)
        state.now += chance.random()
        match chance.randrange(4):
            case 0:
                process.ask(chance.randint(1, 4))
            case 1:
                process.use -= min(process.use, chance.randint(0, 3))
            case _:
                process.sync(limit, spare=chance.randint(0, 1))
        process.start(limit)
        for each in processes:  # no process is suspended for longer than a lease
            if each.table.owned:
                each.sync(limit)
        owned = [number for each in processes for number in each.table.owned]
        assert len(owned) == len(set(owned)) <= limit
        assert sum(each.use for each in processes) <= limit
