"""Limits over a real state: what is booked counts, in all processes, also while the state is unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.errors import QuotaExceeded, RateLimited
from openai_dify_proxy.events import Usage
from openai_dify_proxy.keys.limits import NO_LIMITS, Budget, KeyLimits
from openai_dify_proxy.limits import ledger as ledger_module
from openai_dify_proxy.limits.accounts import Account, Work, day_of
from openai_dify_proxy.limits.ledger import BATCH, MAX_APPS, OTHER_APPS, Ledger
from openai_dify_proxy.limits.limiter import Limiter
from openai_dify_proxy.limits.reports import GROUPS, UsageReport, days_between, read_report
from openai_dify_proxy.state import GuardedStore, Operation, StateUnavailable, Store, open_store
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

NOW = 1_795_953_600.0  # 2026-11-29 12:00 UTC
DAY = "2026-11-29"
ACCOUNT = Account("key-a", "team")
USED = Usage(10, 5, 15, "0.0001085", "USD")


class Process:
    """The limiter and the ledger of one process, with a clock of its own. ``gone`` makes its state unreachable."""

    def __init__(self, store: Store) -> None:
        self.now = NOW
        self.gone = False
        self.runs = 0
        self._store = store
        guarded = GuardedStore(self, pause=0)
        self.ledger = Ledger(guarded, days=30, now=lambda: self.now)
        self.limiter = Limiter(guarded, self.ledger, now=lambda: self.now)

    async def run(self, *operations: Operation) -> list[bytes | None]:
        self.runs += 1
        if self.gone:
            raise StateUnavailable("gone")
        return await self._store.run(*operations)

    def run_now(self, *operations: Operation) -> list[bytes | None] | None:
        self.runs += 1
        return None if self.gone else self._store.run_now(*operations)

    async def close(self) -> None:
        await self.ledger.close()
        await self._store.close()

    async def turn(self, limits: KeyLimits, work: Work | None = None, account: Account = ACCOUNT) -> str | None:
        """Check a request, and book its turn if it is admitted. Return the code of its error."""
        verdict = await self.limiter.check(account.id, limits)
        if verdict.error is not None:
            return verdict.error.code
        booking = self.ledger.book(account, work or Work("app", "stop", USED), limits)
        if booking is not None:
            await booking
        return None

    async def report(self, *by: str, caller: str | None = None) -> UsageReport:
        await self.ledger.flush()
        groups = [group for group in GROUPS if group in by]
        return await read_report(self.run, [DAY], groups, caller=caller)


@pytest.fixture(params=["memory", "sqlite", "valkey"])
async def processes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sequence[Process]]:
    """Two processes that share a state; with the state in memory, one process twice."""
    server = None
    if request.param == "valkey":
        server = ValkeyServer(valkey_program(), tmp_path / "valkey")
        server.start()
        url = server.url()
    else:
        url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/state.db"
    opened = [Process(await open_store(url, max_entries=1000, timeout=PATIENCE))]
    opened.append(
        opened[0] if request.param == "memory" else Process(await open_store(url, max_entries=1000, timeout=PATIENCE))
    )
    yield opened
    for process in {id(process): process for process in opened}.values():
        await process.close()
    if server is not None:
        server.kill()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    opened = Process(await open_store("memory://", max_entries=1000))
    yield opened
    opened.gone = False
    await opened.close()


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (KeyLimits(daily=Budget(turns=4)), 4),
        (KeyLimits(monthly=Budget(turns=4)), 4),
        (KeyLimits(daily=Budget(tokens=31)), 3),
        (KeyLimits(daily=Budget(price={"USD": Decimal("0.0003255")})), 3),
        (KeyLimits(daily=Budget(price={"USD": Decimal("0.0003256")})), 4),
    ],
)
async def test_turns_count_in_all_processes_as_soon_as_they_end(
    processes: Sequence[Process], limits: KeyLimits, allowed: int
) -> None:
    codes = [await processes[number % 2].turn(limits) for number in range(allowed + 2)]
    assert codes == [*[None] * allowed, "insufficient_quota", "insufficient_quota"]


async def test_requests_per_minute_in_all_processes(processes: Sequence[Process]) -> None:
    limits = KeyLimits(requests_per_minute=3)
    # A bucket of three gains one in twenty seconds.
    codes = [await processes[number % 2].turn(limits) for number in range(4)]
    assert codes == [None, None, None, "rate_limit_exceeded"]


async def test_tokens_per_minute_in_all_processes(processes: Sequence[Process]) -> None:
    limits = KeyLimits(tokens_per_minute=20)
    work = Work("app", "stop", Usage(10, 1000, 1010))
    codes = [await processes[number % 2].turn(limits, work) for number in range(3)]
    assert codes == [None, "rate_limit_exceeded", "rate_limit_exceeded"]


async def test_the_overshoot_is_at_most_the_turns_in_flight(processes: Sequence[Process]) -> None:
    limits = KeyLimits(daily=Budget(turns=20))
    in_flight = 0
    most = admitted = 0

    async def client(process: Process) -> None:
        nonlocal in_flight, most, admitted
        while (await process.limiter.check(ACCOUNT.id, limits)).error is None:
            admitted += 1
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0)
            booking = process.ledger.book(ACCOUNT, Work("app", "stop", USED), limits)
            assert booking is not None
            await booking
            in_flight -= 1

    await asyncio.gather(*(client(processes[number % 2]) for number in range(10)))
    assert 20 <= admitted < 20 + most


async def test_turns_that_end_together_are_written_together(processes: Sequence[Process]) -> None:
    limits = KeyLimits(daily=Budget(turns=1000), monthly=Budget(turns=1000), tokens_per_minute=15)
    process = processes[0]
    bookings = [process.ledger.book(ACCOUNT, Work("app", "stop", USED), limits) for _ in range(100)]
    bookings[0].cancel()  # type: ignore[union-attr]  # the caller has gone; the turn counts
    await asyncio.gather(*[booking for booking in bookings[1:] if booking is not None])
    assert process.runs == 1
    assert await processes[1].turn(KeyLimits(daily=Budget(turns=100))) == "insufficient_quota"
    assert await processes[1].turn(KeyLimits(tokens_per_minute=15)) == "rate_limit_exceeded"


async def test_a_bug_in_a_write_leaves_no_turn_waiting(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = KeyLimits(daily=Budget(turns=1000))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def broken(*_: Operation) -> list[bytes | None]:
        raise LookupError

    monkeypatch.setattr(process, "run", broken)
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            booking = process.ledger.book(ACCOUNT, Work("app", "stop", USED), limits)
            assert booking is not None
            await booking
    monkeypatch.undo()


async def test_usage_is_the_sum_of_all_processes_to_the_last_digit(processes: Sequence[Process]) -> None:
    one, other = processes
    for process in (one, other):
        process.ledger.book(ACCOUNT, Work("chat", "stop", USED))
        process.ledger.book(ACCOUNT, Work("flow", "turn_failed", Usage(1, 0, 1, "9.9999999", "RMB")))
        process.ledger.book(Account("anonymous"), Work("chat", "client_gone"), NO_LIMITS)
        await process.ledger.flush()
    report = await one.report("key", "app")
    rows = {(row.key_id, row.key, row.app): row for row in report.data}
    assert rows.keys() == {("key-a", "team", "chat"), ("key-a", "team", "flow"), ("anonymous", None, "chat")}
    chat = rows["key-a", "team", "chat"]
    assert (chat.turns, chat.outcomes, chat.total_tokens, chat.price) == (2, {"stop": 2}, 30, {"USD": "0.000217"})
    assert rows["key-a", "team", "flow"].price == {"RMB": "19.9999998"}
    assert rows["anonymous", None, "chat"].outcomes == {"client_gone": 2}
    assert report.total.turns == 6
    assert report.total.price == {"RMB": "19.9999998", "USD": "0.000217"}
    own = await one.report("day", caller="key-a")
    assert [(row.day, row.turns) for row in own.data] == [(DAY, 4)]


async def test_many_turns_are_booked_to_the_last_one(process: Process) -> None:
    for _ in range(2 * BATCH + 1):
        process.ledger.book(ACCOUNT, Work("chat", "stop", USED))
    process.now += 86_400
    process.ledger.book(ACCOUNT, Work("chat", "stop", USED))
    await process.ledger.flush()
    report = await read_report(process.run, [DAY, day_of(process.now)], ["day"])
    assert {row.day: row.turns for row in report.data} == {DAY: 2 * BATCH + 1, day_of(process.now): 1}


async def test_a_budget_counts_what_was_used_before_it_was_set(process: Process) -> None:
    for _ in range(3):
        process.ledger.book(ACCOUNT, Work("app", "stop", USED))
    await process.ledger.flush()
    assert await process.turn(KeyLimits(daily=Budget(turns=3))) == "insufficient_quota"


async def test_a_new_day_has_a_new_budget_and_a_new_month_too(process: Process) -> None:
    limits = KeyLimits(daily=Budget(turns=1), monthly=Budget(turns=2))
    assert [await process.turn(limits) for _ in range(2)] == [None, "insufficient_quota"]
    process.now += 86_400
    assert [await process.turn(limits) for _ in range(2)] == [None, "insufficient_quota"]
    process.now += 86_400  # 1 December
    assert day_of(process.now) == "2026-12-01"
    assert await process.turn(limits) is None


async def test_estimates_and_turns_that_never_started_do_not_count(process: Process) -> None:
    limits = KeyLimits(daily=Budget(turns=1, tokens=1), tokens_per_minute=1)
    assert await process.turn(limits, Work("app", "turn_failed", started=False)) is None
    assert await process.turn(limits, Work("app", "stop")) is None
    assert await process.turn(limits) == "insufficient_quota"


async def test_without_the_state_each_process_applies_the_limits_by_itself(process: Process) -> None:
    limits = KeyLimits(daily=Budget(turns=3), requests_per_minute=100)
    assert [await process.turn(limits) for _ in range(2)] == [None, None]
    process.gone = True
    assert [await process.turn(limits) for _ in range(2)] == [None, "insufficient_quota"]
    other = Account("key-b")
    assert [await process.turn(KeyLimits(requests_per_minute=1), account=other) for _ in range(2)] == [
        None,
        RateLimited.default_code,
    ]
    tokens = KeyLimits(tokens_per_minute=10)
    assert [await process.turn(tokens, account=other) for _ in range(2)] == [None, RateLimited.default_code]
    process.gone = False
    await process.ledger.flush()
    assert await process.turn(limits) == QuotaExceeded.default_code
    assert (await process.report()).total.turns == 5


async def test_usage_is_written_within_a_second(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "FLUSH_SECONDS", 0.001)
    assert process.ledger.book(ACCOUNT, Work("app", "stop", USED)) is None
    async with asyncio.timeout(PATIENCE):
        while not (await read_report(process.run, [DAY], [])).total.turns:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


async def test_usage_that_cannot_be_written_is_written_later(process: Process) -> None:
    process.gone = True
    process.ledger.book(ACCOUNT, Work("app", "stop", USED))
    await process.ledger.flush()
    process.gone = False
    process.ledger.book(ACCOUNT, Work("app", "stop", USED))
    assert (await process.report()).total.turns == 2


async def test_the_end_of_a_process_without_its_state() -> None:
    process = Process(await open_store("memory://", max_entries=1000))
    process.ledger.book(ACCOUNT, Work("app", "stop", USED))
    process.gone = True
    with capture_logs() as logs:
        await process.close()
    assert [entry["event"] for entry in logs] == ["state_unavailable", "usage_lost"]


async def test_the_names_of_models_that_clients_choose_are_bounded(process: Process) -> None:
    for number in range(MAX_APPS + 10):
        process.ledger.book(ACCOUNT, Work(f"owner/model-{number}" + "x" * 1000, "ok", pictures=1))
    report = await process.report("app")
    assert len(report.data) == MAX_APPS + 1
    assert next(row for row in report.data if row.app == OTHER_APPS).pictures == 10
    assert report.total.pictures == MAX_APPS + 10
    assert max(len(row.app or "") for row in report.data) == 100


async def test_totals_that_are_remembered_are_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_SEEN", 5)
    limits = KeyLimits(daily=Budget(turns=2))
    for number in range(10):
        await process.turn(limits, account=Account(f"key-{number}"))
    process.gone = True
    assert process.ledger.known(f"spent:key-0:{DAY}") == {}
    assert process.ledger.known(f"spent:key-9:{DAY}")["turns"] == 1


async def test_a_report_of_many_callers_and_days(process: Process) -> None:
    for _ in range(3):
        for number in range(150):
            process.ledger.book(Account(f"key-{number}"), Work("app", "stop", USED))
        await process.ledger.flush()
        process.now += 86_400
    days = days_between(date(2026, 11, 28), date(2026, 11, 30))
    report = await read_report(process.run, days, ["day"])
    assert [(row.day, row.turns) for row in report.data] == [("2026-11-29", 150), ("2026-11-30", 150)]
    assert (report.first, report.last) == ("2026-11-28", "2026-11-30")
