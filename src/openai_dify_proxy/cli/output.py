"""Tables and findings as the commands print them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from rich.console import Console
from rich.markup import escape

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask, so that a file or a pipe gets whole lines."""


class Finding(NamedTuple):
    """``trouble`` keeps something from working; a ``note`` is worth knowing."""

    kind: Literal["trouble", "note"]
    text: str


def all_work(findings: Iterable[Finding]) -> bool:
    """Return whether no finding is a ``trouble``."""
    return all(finding.kind == "note" for finding in findings)


def console(plain_width: int = PLAIN_WIDTH) -> Console:
    """Return a console as wide as the terminal, or ``plain_width`` columns wide without one."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=plain_width)


def print_findings(findings: Iterable[tuple[str, Finding]]) -> None:
    """Print each finding with the name of its subject."""
    out = console()
    for name, (kind, text) in findings:
        style = "bold red" if kind == "trouble" else "yellow"
        out.print(f"[{style}]{kind}[/] {escape(name)}: {escape(text)}", soft_wrap=True, highlight=False)
