"""Shared by all commands: common flags, loading the settings, and printing errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from openai_dify_proxy.cli.control_socket import CannotReload
from openai_dify_proxy.cli.flags import setting_flag
from openai_dify_proxy.cli.listening import CannotListen
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.settings.sources import load_settings

ConfigFlag = Annotated[Path | None, setting_flag("config_file", "FILE", "--config")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class CannotDo(Exception):
    """A command cannot do its work. The text is a sentence for the user."""


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Print an error as sentences and exit: code 2 for wrong settings, 1 for everything else."""
    try:
        yield
    except SettingsError as error:
        _warn(error.warnings)
        _fail(error.problems, code=2)
    except (CannotListen, CannotReload, CannotDo) as error:
        _fail([str(error)], code=1)
    except ProxyError as error:
        _fail([error.with_reason], code=1)


def load(config: Path | None, **flags: object) -> Settings:
    settings = load_settings(config=config, overrides=flags)
    _warn(settings.warnings)
    return settings


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def _fail(problems: list[str], *, code: int) -> NoReturn:
    for problem in problems:
        typer.echo(f"Error: {problem}", err=True)
    raise typer.Exit(code)
