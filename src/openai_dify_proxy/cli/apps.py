"""The command ``apps``: the configured models as a table or as JSON."""

from __future__ import annotations

from typing import NamedTuple

import typer
from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.cli.demo import needs_demo
from openai_dify_proxy.cli.output import print_json, print_table
from openai_dify_proxy.settings import Settings


class AppRow(NamedTuple):
    model: str
    default: bool
    aliases: tuple[str, ...]
    mode: str | None
    dify_api_url: str | None


def list_apps(settings: Settings, *, as_json: bool) -> None:
    """Print the models. Raises SettingsError if nothing is configured and the demo is missing."""
    demo = needs_demo(settings)
    rows = _demo_rows() if demo else _rows(settings)
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    if not rows:
        typer.echo(f"No apps are configured. Requests must carry the key of an app in {settings.dify_api_url}.")
        return
    if demo:
        typer.echo("Nothing is configured, so serve offers the demo apps.")
    cells = [_cells(row) for row in rows]
    used = [number for number in range(len(COLUMNS)) if any(row[number] for row in cells)]
    table = Table(*(COLUMNS[number] for number in used))
    for row in cells:
        table.add_row(*(row[number] for number in used))
    facts = (
        (row[0], "\n".join(f"{COLUMNS[number]}: {row[number]}" for number in used[1:] if row[number])) for row in cells
    )
    print_table(table, facts)


COLUMNS = ("Model", "Aliases", "Mode", "Dify")


def _cells(row: AppRow) -> tuple[str, ...]:
    """Return the cells as markup."""
    name = f"{row.model} (default)" if row.default else row.model
    return tuple(map(escape, (name, ", ".join(row.aliases), row.mode or "detected", row.dify_api_url or "demo")))


def _rows(settings: Settings) -> list[AppRow]:
    return [
        AppRow(app.name, app.name == settings.default_app, app.aliases, app.mode, app.api_url)
        for app in settings.apps.values()
    ]


def _demo_rows() -> list[AppRow]:
    from openai_dify_proxy_demo import DEMO_APPS

    return [AppRow(app.name, app is DEMO_APPS[0], (), app.mode, None) for app in DEMO_APPS]
