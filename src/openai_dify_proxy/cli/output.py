"""Tables, findings and JSON as the commands print them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status
from rich.table import Column, Table

from openai_dify_proxy.translate.dify.app_findings import Finding

_T = TypeVar("_T")

SHOW_AFTER = 1.0
"""Seconds after which a command says in a terminal what it works on."""

PLAIN_WIDTH = 160
"""Columns of a line that goes to a file or a pipe."""


def whole(header: str, *, wrap: bool = False) -> Column:
    """Return a column that never shortens its cells. Without ``wrap`` other columns get narrower first."""
    return Column(header, no_wrap=not wrap, overflow="fold")


def shown_result(passed: bool) -> str:
    """Return the markup of ``yes`` or ``no``."""
    return "[green]yes[/]" if passed else "[bold red]no[/]"


def console(plain_width: int = PLAIN_WIDTH) -> Console:
    """Return a console as wide as the terminal, or ``plain_width`` columns wide without one."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=plain_width)


def print_table(
    table: Table, rows: Iterable[tuple[str, str]], *, plain_width: int | None = None, wraps: bool = False
) -> None:
    """Print the table; where the terminal is too narrow for it, the name and the facts of each row below each other.

    The names and facts of ``rows`` are markup. Without a terminal the table has as much room as it needs, or
    ``plain_width`` columns. With ``wraps`` the table has one column whose cells may wrap between words.
    """
    width = Console(width=_UNLIMITED, height=_UNLIMITED).measure(table)  # a dumb terminal ignores a width alone
    out = console(plain_width or width.maximum)
    if (width.minimum if wraps else width.maximum) <= out.width:
        out.print(table)
        return
    if table.title:
        out.print(table.title, soft_wrap=True, highlight=False)
    for name, facts in rows:
        out.print(name, soft_wrap=True, highlight=False)
        out.print(Padding(facts, (0, 0, 0, 2), expand=False), highlight=False)


_UNLIMITED = 10_000


def print_findings(findings: Iterable[tuple[str, Finding]]) -> None:
    """Print each finding with the name of its subject."""
    out = console()
    for name, finding in findings:
        style = "bold red" if finding.kind == "problem" else "yellow"
        text = f"[{style}]{finding.kind}[/] {escape(name)}: {escape(finding.text)}"
        out.print(text, soft_wrap=True, highlight=False)


def run_shown(text: str, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of ``work``, which prints nothing. After a second, a terminal shows ``text`` until then."""
    screen = Console(stderr=True)
    return asyncio.run(_shown(screen.status(f"{text} …"), work) if screen.is_terminal else work)


async def _shown(status: Status, work: Coroutine[Any, Any, _T]) -> _T:
    timer = asyncio.get_running_loop().call_later(SHOW_AFTER, status.start)
    try:
        return await work
    finally:
        timer.cancel()
        status.stop()


def print_json(value: object) -> None:
    """Print JSON, with escapes for characters that the encoding of standard output lacks."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not unicode))
