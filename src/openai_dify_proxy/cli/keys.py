"""The commands ``keys …``: create, list, show, rotate and revoke client keys, and forget an end user."""

from __future__ import annotations

from typing import Annotated

import typer

from openai_dify_proxy.cli.flags import Command, Group, key_flag
from openai_dify_proxy.cli.running import ConfigFlag, JsonFlag, load, reporting_errors

keys = typer.Typer(
    cls=Group,
    help="Create and change client keys. They are in the state (STATE_URL), so running servers accept and refuse them "
    "within a second.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@keys.callback()
def _help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)
        raise typer.Exit(2)


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key, or its id.")]


@keys.command(cls=Command)
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Letters, digits, dots, underscores and hyphens, at most 64.")
    ],
    *,
    label: Annotated[str | None, key_flag("label", "TEXT")] = None,
    models: Annotated[str | None, key_flag("models", "NAMES")] = None,
    end_user: Annotated[str | None, key_flag("end_user", "NAME")] = None,
    requests_per_minute: Annotated[str | None, key_flag("requests_per_minute", "N")] = None,
    tokens_per_minute: Annotated[str | None, key_flag("tokens_per_minute", "N")] = None,
    concurrent_turns: Annotated[str | None, key_flag("concurrent_turns", "N")] = None,
    daily_turns: Annotated[str | None, key_flag("daily_turns", "N")] = None,
    daily_tokens: Annotated[str | None, key_flag("daily_tokens", "N")] = None,
    daily_price: Annotated[str | None, key_flag("daily_price", "AMOUNTS")] = None,
    monthly_turns: Annotated[str | None, key_flag("monthly_turns", "N")] = None,
    monthly_tokens: Annotated[str | None, key_flag("monthly_tokens", "N")] = None,
    monthly_price: Annotated[str | None, key_flag("monthly_price", "AMOUNTS")] = None,
    priority: Annotated[str | None, key_flag("priority", "N")] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="WHEN",
            help="When the key stops working: a date or time (UTC) such as 2027-01-31, or a duration such as 90d.",
        ),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Let the key open the routes of operators.")] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--import",
            help="Read an existing key from standard input instead of making a new one. A key of API_KEYS keeps its "
            "conversations, responses and files.",
        ),
    ] = False,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the key alone.")] = False,
) -> None:
    """Create a key, and print it on standard output. It cannot be shown again."""
    options: dict[str, object] = {
        "label": label,
        "models": models,
        "end_user": end_user,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_turns": concurrent_turns,
        "daily_turns": daily_turns,
        "daily_tokens": daily_tokens,
        "daily_price": daily_price,
        "monthly_turns": monthly_turns,
        "monthly_tokens": monthly_tokens,
        "monthly_price": monthly_price,
        "priority": priority,
        "expires": expires,
        "admin": admin or None,
    }
    from openai_dify_proxy.cli.key_commands import create_key

    with reporting_errors():
        create_key(load(config), name, options, take_over=take_over, as_json=as_json)


@keys.command("list", cls=Command)
def list_all(
    *,
    show_revoked: Annotated[bool, typer.Option("--revoked", help="List revoked keys too.")] = False,
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """List the keys of the state and of the settings. Shows only the beginning of each key."""
    from openai_dify_proxy.cli.key_commands import list_keys

    with reporting_errors():
        list_keys(load(config), revoked=show_revoked, as_json=as_json)


@keys.command(cls=Command)
def show(name: NameArgument, config: ConfigFlag = None, as_json: JsonFlag = False) -> None:
    """Show one key with all its limits."""
    from openai_dify_proxy.cli.key_commands import show_key

    with reporting_errors():
        show_key(load(config), name, as_json=as_json)


@keys.command(cls=Command)
def rotate(
    name: NameArgument,
    *,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="DURATION", help="How long the old key still works, such as 1h. Default: 0."),
    ] = None,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the key alone.")] = False,
) -> None:
    """Replace a key by a new one, and print that. The caller keeps its conversations, responses, files and limits."""
    from openai_dify_proxy.cli.key_commands import rotate_key_of

    with reporting_errors():
        rotate_key_of(load(config), name, grace, as_json=as_json)


@keys.command(cls=Command)
def revoke(
    name: NameArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFlag = None,
) -> None:
    """Revoke a key for good. Running servers refuse it within a second; running answers finish."""
    from openai_dify_proxy.cli.key_commands import revoke_key_of

    with reporting_errors():
        revoke_key_of(load(config), name, yes=yes)


@keys.command("forget-user", cls=Command)
def forget(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The name or id of the client key.")],
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="The end user, as requests name it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Erase an end user's stored responses, conversations and files, and the conversations in Dify.

    Exits with code 1 if Dify could not delete some of them; run it again then.
    """
    from openai_dify_proxy.cli.forget_user import forget_user

    with reporting_errors():
        if not forget_user(load(config), key, end_user, yes=yes, as_json=as_json):
            raise typer.Exit(1)
