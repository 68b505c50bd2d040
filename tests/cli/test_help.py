"""Flags and their help."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import cast

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption

from openai_dify_proxy.cli.main import app
from openai_dify_proxy.settings import Settings
from tests.cli.program import Program

COMMANDS = cast(TyperGroup, typer.main.get_command(app)).commands


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_help(program: Program, command: tuple[str, ...]) -> None:
    ended = program.run(*command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"Usage: openai-dify-proxy{''.join(f' {name}' for name in command)} " in ended.stdout


@pytest.mark.parametrize("command", ["serve", "check", "apps", "models", "pictures"])
def test_every_flag_for_a_setting_names_its_variable(command: str) -> None:
    settings = {*(field.name for field in fields(Settings)), "config"}
    options = [option for option in COMMANDS[command].params if option.name in settings]
    assert options
    for option in options:
        assert isinstance(option, TyperOption)
        variable = "CONFIG_FILE" if option.name == "config" else str(option.name).upper()
        assert f"Variable: {variable}." in (option.help or "")


def test_no_flag_takes_a_key() -> None:
    flags = {flag for command in COMMANDS.values() for option in command.params for flag in option.opts}
    assert not [flag for flag in flags if "key" in flag]


def test_version(program: Program) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert program.run("--version").stdout == f"openai-dify-proxy {project['version']}\n"


def test_no_command_shows_the_help(program: Program) -> None:
    assert "Commands" in program.run().stdout
