"""The command ``usage``: the usage of callers, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import typer
from msgspec import to_builtins
from rich.markup import escape
from rich.table import Column, Table

from openai_dify_proxy.cli.output import print_json, print_table, run_shown
from openai_dify_proxy.errors import InvalidRequest, StateUnreachable
from openai_dify_proxy.limits.accounts import MAX_DAYS
from openai_dify_proxy.limits.reports import (
    GROUPS,
    Group,
    UsageReport,
    UsageTotals,
    days_between,
    read_groups,
    read_report,
)
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.state import Operation, StateUnavailable, open_store, sqlite_path

TIMEOUT = 10.0
"""Seconds to wait for one run of the state."""

WIDTH = 80
"""Columns of a table that goes to a file or a pipe."""


def show_usage(settings: Settings, *, by: str, days: int, as_json: bool) -> None:
    """Print the usage of the last ``days``. Raises ProxyError."""
    groups = read_groups(by)
    if groups is None:
        raise InvalidRequest(f"--by {by!r} is unknown. Use {', '.join(GROUPS)}, or several with commas.")
    if not is_shared(settings.state_url.get_secret_value()):
        raise StateUnreachable(
            "The state is in the memory of the server (STATE_URL), where no other program can read it. "
            "Request GET /v1/usage from the server with an admin key."
        )
    report = run_shown("Reading the usage", _report(settings, groups, min(days, MAX_DAYS)))
    if as_json:
        print_json(to_builtins(report))
    elif not report.data:
        typer.echo(f"No usage from {report.first} to {report.last}.")
    else:
        typer.echo(f"{report.first} to {report.last} (UTC)")
        _print(report, groups)


async def _report(settings: Settings, groups: Sequence[Group], days: int) -> UsageReport:
    today = datetime.now(UTC).date()
    range_of_days = days_between(today - timedelta(days=days - 1), today)
    path = sqlite_path(settings.state_url.get_secret_value())
    if path is not None and not path.exists():  # reading it would create it
        return await read_report(_nothing, range_of_days, groups)
    store = await open_store(
        settings.state_url.get_secret_value(),
        max_entries=settings.state_max_entries,
        max_bytes=settings.state_max_bytes,
        timeout=TIMEOUT,
    )
    try:
        return await read_report(store.run, range_of_days, groups)
    except StateUnavailable as error:
        raise StateUnreachable(f"The state cannot be read: {error}. Check STATE_URL.") from error
    finally:
        await store.close()


async def _nothing(*operations: Operation) -> list[bytes | None]:
    return [None] * len(operations)


def _print(report: UsageReport, groups: Sequence[Group]) -> None:
    """Print the usage, without columns of numbers that are zero in every row."""
    rows = [(tuple(_name(row, group) for group in groups), _numbers(row)) for row in report.data]
    if len(rows) > 1:
        rows.append((("Total", *[""] * (len(groups) - 1)), _numbers(report.total)))
    used = [name for name in rows[-1][1] if any(numbers[name] not in {"", "0"} for _, numbers in rows)]
    table = Table(*(group.capitalize() for group in groups), *(Column(name, justify="right") for name in used))
    for index, (names, numbers) in enumerate(rows):
        # The last row of several is the total.
        table.add_row(*map(escape, names), *(numbers[name] for name in used), end_section=index == len(rows) - 2)
    facts = [
        (
            escape(", ".join(filter(None, names))),
            ", ".join(f"{name.lower()}: {' + '.join(numbers[name].splitlines())}" for name in used if numbers[name]),
        )
        for names, numbers in rows
    ]
    print_table(table, facts, plain_width=WIDTH)


def _name(row: UsageTotals, group: Group) -> str:
    match group:
        case "key":
            return row.key or row.key_id or ""
        case "app":
            return row.app or ""
        case "day":
            return row.day or ""


def _numbers(row: UsageTotals) -> dict[str, str]:
    """Return the cells by the header of their column."""
    return {
        "Turns": str(row.turns),
        "Failed": str(row.outcomes.get("turn_failed", 0)),
        "Tokens": str(row.total_tokens),
        "Pictures": str(row.pictures),
        "Price": "\n".join(f"{price} {currency}" for currency, price in row.price.items()),
    }
