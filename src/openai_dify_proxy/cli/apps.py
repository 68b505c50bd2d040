"""The configured models as a table or as JSON, and how the command line shows such things."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DEMO_APPS

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask, so that a file or a pipe gets whole lines."""


class Finding(NamedTuple):
    """``trouble`` keeps something from working; a ``note`` is worth knowing."""

    kind: Literal["trouble", "note"]
    text: str


def console(plain_width: int = PLAIN_WIDTH) -> Console:
    plain = Console()
    return plain if plain.is_terminal else Console(width=plain_width)


def print_findings(findings: Iterable[tuple[str, Finding]]) -> None:
    """Each with the name of what it is about."""
    out = console()
    for name, (kind, text) in findings:
        style = "bold red" if kind == "trouble" else "yellow"
        out.print(f"[{style}]{kind}[/] {escape(name)}: {escape(text)}", soft_wrap=True, highlight=False)


class AppRow(NamedTuple):
    model: str
    default: bool
    aliases: tuple[str, ...]
    mode: str | None
    dify_api_url: str | None


def list_apps(settings: Settings, *, as_json: bool) -> None:
    nothing_set = settings.dify_api_url is None and not settings.apps
    rows = _demo_rows() if nothing_set else _rows(settings)
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo(f"No apps are configured: requests bring the key of an app of {settings.dify_api_url}.")
        return
    if nothing_set:
        typer.echo("Nothing is configured: serve offers the built-in demo apps.")
    table = Table("Model", "Aliases", "Mode", "Dify")
    for row in rows:
        cells = (
            f"{row.model} (default)" if row.default else row.model,
            ", ".join(row.aliases),
            row.mode or "asked from Dify",
            row.dify_api_url or "built in",
        )
        table.add_row(*map(escape, cells))
    console().print(table)


def _rows(settings: Settings) -> list[AppRow]:
    return [
        AppRow(app.name, app.name == settings.default_app, app.aliases, app.mode, app.api_url)
        for app in settings.apps.values()
    ]


def _demo_rows() -> list[AppRow]:
    return [AppRow(app.name, app is DEMO_APPS[0], (), app.mode, None) for app in DEMO_APPS]
