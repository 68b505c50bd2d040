"""The program's commands and flags: flags become settings, and each command calls the module that does its work.

Commands import their modules when they run, so that a serving process loads no tables and colours, and ``--help``
answers at once.
"""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from openai_dify_proxy.cli.flags import Command, Group, setting_flag, usage_problem
from openai_dify_proxy.cli.keys import keys
from openai_dify_proxy.cli.running import ConfigFlag, JsonFlag, load, reporting_errors
from openai_dify_proxy.cli.terminal import accept_any_encoding
from openai_dify_proxy.settings import SettingsError
from openai_dify_proxy.settings.sources import load_settings

app = typer.Typer(
    cls=Group,
    help="Serve every Dify app as an OpenAI model. The proxy speaks the OpenAI API to clients and the Dify API to "
    "Dify. Settings come from flags, environment variables, the file .env in the current directory, and a TOML file; "
    "the first that has a value wins.",
    invoke_without_command=True,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    # Tracebacks with variables would show keys.
    pretty_exceptions_enable=False,
)

app.add_typer(keys, name="keys")

UrlFlag = Annotated[str | None, setting_flag("dify_api_url", "URL")]


def main() -> None:
    """Run the console script."""
    accept_any_encoding()
    try:
        code = app(prog_name="openai-dify-proxy", standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"Error: {usage_problem(error)}", err=True)
        code = 2
    sys.exit(code)


def _version(on: bool) -> None:
    if on:
        typer.echo(f"openai-dify-proxy {version('openai-dify-proxy')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)
        raise typer.Exit(2)


@app.command(cls=Command)
def serve(
    *,
    host: Annotated[str | None, setting_flag("host", "ADDRESS")] = None,
    port: Annotated[str | None, setting_flag("port", "N")] = None,
    workers: Annotated[str | None, setting_flag("workers", "N")] = None,
    dify_api_url: UrlFlag = None,
    config: ConfigFlag = None,
    log_level: Annotated[str | None, setting_flag("log_level", "LEVEL")] = None,
    log_format: Annotated[str | None, setting_flag("log_format", "FORMAT")] = None,
) -> None:
    """Serve the OpenAI API. With neither DIFY_API_URL nor apps configured it serves the demo apps.

    Keys are not flags, since other users can read flags. Set DIFY_API_KEY and API_KEYS in the environment or in .env.
    """
    from openai_dify_proxy.cli.serve import serve_proxy
    from openai_dify_proxy.cli.serve_settings import Sources

    flags = {
        "host": host,
        "port": port,
        "workers": workers,
        "dify_api_url": dify_api_url,
        "log_level": log_level,
        "log_format": log_format,
    }
    with reporting_errors():
        given = [("--config", config), ("--dify-api-url", dify_api_url)]
        words = [word for flag, value in given if value is not None for word in (flag, str(value))]
        sources = Sources(None if config is None else str(config), flags)
        serve_proxy(sources, check=shlex.join(["openai-dify-proxy", "check", *words]))


@app.command(cls=Command)
def reload(
    port: Annotated[str | None, setting_flag("port", "N")] = None,
    config: ConfigFlag = None,
) -> None:
    """Let the running server read .env and the TOML file again, and wait until its workers use them.

    Running answers finish. If the new settings are invalid, the server keeps the old ones, and the errors are printed.
    """
    from openai_dify_proxy.cli.control_socket import request_reload

    with reporting_errors():
        problems = request_reload(load_settings(config=config, overrides={"port": port}).port)
        if problems:
            raise SettingsError(problems)
        typer.echo("The server uses the new settings.")


@app.command(cls=Command)
def demo(
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen on. Default: 127.0.0.1.", show_default=False),
    ] = "127.0.0.1",
    port: Annotated[
        str,
        typer.Option(
            metavar="N", help="The port to listen on; 0 selects a free one. Default: 8224.", show_default=False
        ),
    ] = "8224",
    slots: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Serve only N connections at a time, as a real Dify does (ten). Default: no limit.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve only the demo Dify, with its own API and one app of each mode. It needs no models or accounts."""
    from openai_dify_proxy.cli.demo import serve_demo

    with reporting_errors():
        serve_demo(load_settings(env={}, dotenv=None, overrides={"host": host, "port": port}), slots=slots)


@app.command(cls=Command)
def check(dify_api_url: UrlFlag = None, config: ConfigFlag = None, as_json: JsonFlag = False) -> None:
    """Check every app in Dify, every image model in Replicate, the picture storage, IPFS and the state.

    Runs no app, generates no image and costs nothing. Exits with code 1 if something does not work, and prints the
    reason.
    """
    from openai_dify_proxy.cli.check import check_all

    with reporting_errors():
        if not check_all(load(config, dify_api_url=dify_api_url), as_json=as_json):
            raise typer.Exit(1)


@app.command(cls=Command)
def apps(config: ConfigFlag = None, as_json: JsonFlag = False) -> None:
    """List the configured models. Sends nothing to Dify and shows no keys."""
    from openai_dify_proxy.cli.apps import list_apps

    with reporting_errors():
        list_apps(load(config), as_json=as_json)


@app.command(cls=Command)
def chat(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="The app to talk to. Default: DEFAULT_APP.", show_default=False),
    ] = None,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The proxy to talk to. Default: the one that runs on PORT, or else one for this session.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A file for the first question; may be repeated.", show_default=False),
    ] = None,
    config: ConfigFlag = None,
) -> None:
    """Talk to an app in the terminal. Without a terminal, answer the question on standard input.

    The key for the proxy comes from the variable OPENAI_API_KEY, since other users can read flags.
    """
    from openai_dify_proxy.cli.chat import chat as talk

    with reporting_errors():
        if not talk(load(config), model, url=url, files=file or []):
            raise typer.Exit(1)


@app.command(cls=Command)
def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER/NAME",
            help="A Replicate model, or a configured name. Default: IMAGE_MODEL.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the effect of each image header (X-Replicate-…) on a Replicate model, according to the model's schema."""
    from openai_dify_proxy.cli.models import show_model

    with reporting_errors():
        show_model(load(config), name, as_json=as_json)


@app.command(cls=Command)
def pictures(
    *,
    pending: Annotated[
        bool, typer.Option("--pending", help="List only the pictures that wait for their upload to IPFS.")
    ] = False,
    send: Annotated[
        bool, typer.Option("--send", help="Upload those pictures now. Exits with code 1 if an upload fails.")
    ] = False,
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """List the stored pictures, or upload the pending ones to IPFS."""
    from openai_dify_proxy.cli.pictures import list_pictures, send_pictures

    with reporting_errors():
        settings = load(config)
        if not send:
            list_pictures(settings, pending=pending, as_json=as_json)
        elif not send_pictures(settings):
            raise typer.Exit(1)


@app.command(cls=Command)
def usage(
    *,
    by: Annotated[
        str,
        typer.Option(
            metavar="GROUPS", help="key, app or day, or several of them: key,app. Default: key.", show_default=False
        ),
    ] = "key",
    days: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="The last N days, today included (UTC). Default: 30.", show_default=False
        ),
    ] = 30,
    config: ConfigFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the usage of callers: turns, tokens, pictures, and Dify's own prices. Reads the state (STATE_URL)."""
    from openai_dify_proxy.cli.usage import show_usage

    with reporting_errors():
        show_usage(load(config), by=by, days=days, as_json=as_json)
