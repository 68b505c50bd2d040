"""Flags of the commands: their help, which comes from the settings, and errors about them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from openai_dify_proxy.settings import ClientKeySettings, Settings
from openai_dify_proxy.settings.descriptions import default, described_fields, plain, shown_default, summary


class Command(TyperCommand):
    """A command whose help names no types, and whose errors about flags name the command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the flags and arguments, ``--help`` included."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line. Raises a usage error."""
        with _adding_context(ctx):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """The program: as ``Command``, with an error about an unknown command that names the known ones."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the flags, ``--help`` included."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line. Raises a usage error."""
        with _adding_context(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name. Raises a usage error."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Commands: {', '.join(self.commands)}."
            ctx.fail(f"{name!r} is not a command. {hint}")
        return super().resolve_command(ctx, args)


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove the types of flags without a value, and of arguments, from the help."""
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda **_: None  # type: ignore[method-assign]
        elif parameter.is_flag:
            parameter.metavar = ""
    return parameters


@contextmanager
def _adding_context(ctx: Any) -> Iterator[None]:
    """Add the context to errors that have none, such as a missing value."""
    try:
        yield
    except typer.TyperException as error:
        if getattr(error, "ctx", None) is None:
            vars(error)["ctx"] = ctx
        raise


def setting_flag(name: str, metavar: str, flag: str | None = None) -> Any:
    """Return the option for a setting, with its description. ``flag`` is ``--name`` by default."""
    field = described_fields(Settings)[name]
    text = f"{summary(field)} Variable: {name.upper()}."
    if default(field) is not None:
        text += f" Default: {plain(shown_default(field))}."
    return typer.Option(flag or f"--{name.replace('_', '-')}", metavar=metavar, help=text)


def key_flag(name: str, metavar: str) -> Any:
    """Return the option for a setting of a client key, with its description."""
    text = summary(described_fields(ClientKeySettings)[name])
    return typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, show_default=False)


def usage_problem(error: typer.TyperException) -> str:
    """Return two lines: the mistake in the flags, and the command that lists the accepted ones."""
    ctx = getattr(error, "ctx", None)
    program = ctx.command_path if ctx else "openai-dify-proxy"
    return f"{_sentence(error, ctx)}\nRun '{program} --help' for its flags and arguments."


SECRET_FLAGS = {
    f"--{name.replace('_', '-')}": name.upper()
    for name, field in described_fields(Settings).items()
    if "SecretStr" in repr(field.annotation)
}
"""Settings that hold secrets, by the flags that one might look for."""

_EXTRA = "Got unexpected extra argument(s) ("


def _sentence(error: typer.TyperException, ctx: Any) -> str:
    text, flag = error.format_message(), getattr(error, "option_name", None)
    if text.startswith(_EXTRA):
        return f"{ctx.command_path} does not take {text.removeprefix(_EXTRA).removesuffix(')')!r}."
    if flag is None or ctx is None:
        return text
    option = next((option for option in ctx.command.get_params(ctx) if flag in option.opts), None)
    if option is None:
        return _unknown_flag(flag, ctx)
    if option.is_flag:
        return f"{flag} takes no value."
    return f"{flag} requires a value. {re.split(' (?:Variable|Default): ', option.help or '')[0]}"


def _unknown_flag(flag: str, ctx: Any) -> str:
    if secret := difflib.get_close_matches(flag, SECRET_FLAGS, n=1, cutoff=0.9):
        return f"Keys are never flags. Set {SECRET_FLAGS[secret[0]]} in the environment or in .env."
    program = ctx.command_path
    commands = [
        name
        for name, command in getattr(ctx.command, "commands", {}).items()
        if any(flag in option.opts for option in command.params)
    ]
    if commands:
        place = f"{program} {commands[0]} {flag}"
        return f"{flag} is a flag of {', '.join(commands)}. Put the command before it: {place}"
    known = [name for option in ctx.command.get_params(ctx) for name in option.opts if name.startswith("-")]
    near = difflib.get_close_matches(flag, known, n=1)
    return f"{flag} is not a flag of {program}. {f'Did you mean {near[0]}?' if near else ''}".rstrip()
