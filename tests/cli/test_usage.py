"""The command ``usage``: what callers have used, from the state."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest

from openai_dify_proxy.events import Usage
from openai_dify_proxy.limits.accounts import Account, Work
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.state import GuardedStore, open_store
from tests.cli.program import Program
from tests.cli.tables import row, rows
from tests.limits import PATIENCE

USED = Usage(10, 5, 15, "0.0001085", "USD")
DAY = 86_400.0


async def book(url: str, *turns: tuple[Account, Work], ago: float = 0.0) -> None:
    """Book turns, so many seconds ago."""
    store = GuardedStore(await open_store(url, max_entries=1000, timeout=PATIENCE))
    ledger = Ledger(store, days=90, now=lambda: time.time() - ago)
    for account, work in turns:
        ledger.book(account, work)
    await ledger.close()
    await store.close()


TURNS = [
    *[(Account("key-1", "team"), Work("support [bold]", "stop", USED))] * 3,
    (Account("key-1", "team"), Work("sales", "turn_failed", Usage(1, 1, 2, "1", "RMB"))),
    (Account("key-2"), Work("owner/model", "ok", pictures=4)),
]
"""Turns of two callers."""


@pytest.fixture
async def used(program: Program) -> str:
    url = f"sqlite:///{program.directory}/state.db"
    await book(url, *TURNS)
    return url


async def run(program: Program, *flags: str, url: str) -> str:
    ended = await asyncio.to_thread(program.run, "usage", *flags, STATE_URL=url)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


async def test_usage_by_key(program: Program, used: str) -> None:
    shown = await run(program, url=used)
    assert row(shown, "team")[1:] == ["4", "1", "47", "0", "1 RMB"]
    assert row(shown, "key-2")[1:] == ["1", "0", "0", "4", ""]
    assert row(shown, "Total")[1:] == ["5", "1", "47", "4", "1 RMB"]
    assert any(cells[-1] == "0.0003255 USD" for cells in rows(shown))
    assert max(map(len, shown.splitlines())) <= 80


async def test_usage_by_key_app_and_day_fits_80_columns(program: Program, used: str) -> None:
    shown = await run(program, "--by", "key,app,day", url=used)
    today = datetime.now(UTC).date().isoformat()
    assert shown.splitlines()[1:] == [
        f"key-2, owner/model, {today}",
        "  turns: 1, failed: 0, tokens: 0, pictures: 4",
        f"team, sales, {today}",
        "  turns: 1, failed: 1, tokens: 2, pictures: 0, price: 1 RMB",
        f"team, support [bold], {today}",
        "  turns: 3, failed: 0, tokens: 45, pictures: 0, price: 0.0003255 USD",
        "Total",
        "  turns: 5, failed: 1, tokens: 47, pictures: 4, price: 1 RMB + 0.0003255 USD",
    ]


LONG = "customer-support-first-level-emea-of-the-german-branch"


async def test_long_names_stay_whole_at_80_columns(program: Program) -> None:
    url = f"sqlite:///{program.directory}/state.db"
    await book(url, (Account("key-1", "librechat-server"), Work(LONG, "stop", USED)))
    shown = await run(program, "--by", "key,app", url=url)
    assert shown.splitlines()[1:] == [f"librechat-server, {LONG}", "  turns: 1, tokens: 15, price: 0.0001085 USD"]


async def test_columns_of_zeros_are_left_out(program: Program) -> None:
    url = f"sqlite:///{program.directory}/state.db"
    await book(url, (Account("key-1", "team"), Work("owner/model", "ok", pictures=4)))
    shown = await run(program, url=url)
    assert "Turns ┃ Pictures" in shown
    assert row(shown, "team") == ["team", "1", "4"]


async def test_usage_as_json(program: Program, used: str) -> None:
    await book(used, *TURNS, ago=DAY)
    today = datetime.now(UTC).date().isoformat()
    report = json.loads(await run(program, "--by", "app", "--days", "1", "--json", url=used))
    assert (report["from"], report["to"], report["by"]) == (today, today, ["app"])
    assert [entry["app"] for entry in report["data"]] == ["owner/model", "sales", "support [bold]"]
    assert report["data"][2]["price"] == {"USD": "0.0003255"}
    both = json.loads(await run(program, "--days", "2", "--json", url=used))
    assert both["total"]["turns"] == 2 * report["total"]["turns"]


async def test_nothing_was_used(program: Program) -> None:
    assert (await run(program, url=f"sqlite:///{program.directory}/state.db")).startswith("No usage from ")
    assert not (program.directory / "state.db").exists()


@pytest.mark.parametrize(
    ("flags", "url", "message"),
    [
        ([], "memory://", "The state is in the memory of the server"),
        (["--by", "week"], "sqlite:///state.db", "--by 'week' is unknown. Use key, app, day"),
        ([], "valkey://127.0.0.1:1", "The state cannot be read"),
    ],
)
def test_usage_that_cannot_be_shown(program: Program, flags: list[str], url: str, message: str) -> None:
    ended = program.run("usage", *flags, STATE_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Error: {message}")
