"""The program's commands and flags: flags become settings, and each command calls the module that does its work.

Those modules are imported by the commands that need them, so that a serving process loads no tables and colours, and
``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from openai_dify_proxy.cli.listening import CannotListen
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.settings import Settings, SettingsError, load_settings

app = typer.Typer(
    help="Every Dify app as an OpenAI model: an HTTP proxy that speaks the OpenAI API to clients and the Dify API to "
    "Dify. Settings come from flags, the environment, .env and a TOML file, in this order.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with its variables would show keys.
    pretty_exceptions_enable=False,
)

ConfigFlag = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with many apps. Variable: CONFIG_FILE.")
]
UrlFlag = Annotated[
    str | None,
    typer.Option("--dify-api-url", metavar="URL", help="Base URL of the Dify API. Variable: DIFY_API_URL."),
]


def main() -> None:
    """Run the console script."""
    app(prog_name="openai-dify-proxy")


def _version(on: bool) -> None:
    if on:
        typer.echo(f"openai-dify-proxy {version('openai-dify-proxy')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    *,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address to listen on. Variable: HOST. Default: 127.0.0.1."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one. Variable: PORT. Default: 8223.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve. Variable: WORKERS. Default: 1.")] = None,
    dify_api_url: UrlFlag = None,
    config: ConfigFlag = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help="debug, info, warning, error or critical. Variable: LOG_LEVEL. Default: info."
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="console or json. Variable: LOG_FORMAT. Default: console."),
    ] = None,
) -> None:
    """Serve the OpenAI API. With neither DIFY_API_URL nor apps configured it serves the demo apps.

    Keys are never flags, which others can read: set DIFY_API_KEY and API_KEYS in the environment or in .env.
    """
    from openai_dify_proxy.cli.serve import serve_proxy

    with reporting_errors():
        settings = _load(
            config,
            host=host,
            port=port,
            workers=workers,
            dify_api_url=dify_api_url,
            log_level=log_level,
            log_format=log_format,
        )
        serve_proxy(settings)


@app.command()
def demo(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8224,
) -> None:
    """Serve a scripted Dify alone: its own API, with one app of each mode, without models or accounts."""
    from openai_dify_proxy.cli.demo import serve_demo

    with reporting_errors():
        serve_demo(host, port)


@app.command()
def check(dify_api_url: UrlFlag = None, config: ConfigFlag = None) -> None:
    """Check every app in Dify, every image model in Replicate, IPFS and the state; report what will not work, and why.

    Runs nothing and costs nothing. Exits with code 1 if something cannot serve.
    """
    from openai_dify_proxy.cli.check import check_all

    with reporting_errors():
        if not check_all(_load(config, dify_api_url=dify_api_url)):
            raise typer.Exit(1)


@app.command()
def apps(
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the configured models, without asking Dify and without keys."""
    from openai_dify_proxy.cli.apps import list_apps

    with reporting_errors():
        list_apps(_load(config), as_json=as_json)


@app.command()
def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[OWNER/NAME]",
            help="A model of Replicate, or a configured one. Default: IMAGE_MODEL.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what the headers for images do with a model of Replicate, by the model's own schema."""
    from openai_dify_proxy.cli.models import show_model

    with reporting_errors():
        show_model(_load(config), name, as_json=as_json)


@app.command()
def pictures(
    *,
    pending: Annotated[bool, typer.Option("--pending", help="Only those still to be uploaded to IPFS.")] = False,
    send: Annotated[bool, typer.Option("--send", help="Upload those now. Exits with code 1 if some are left.")] = False,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the stored pictures, or upload the pending ones to IPFS."""
    from openai_dify_proxy.cli.pictures import list_pictures, send_pictures

    with reporting_errors():
        settings = _load(config)
        if not send:
            list_pictures(settings, pending=pending, as_json=as_json)
        elif not send_pictures(settings):
            raise typer.Exit(1)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Print an error as sentences and exit: code 2 for wrong settings, 1 for everything else."""
    try:
        yield
    except SettingsError as error:
        _fail(error.problems, code=2)
    except CannotListen as error:
        _fail([str(error)], code=1)
    except ProxyError as error:
        _fail([f"{error.message} {error.log or ''}".rstrip()], code=1)


def _load(config: Path | None, **flags: object) -> Settings:
    settings = load_settings(config=config, overrides=flags)
    for warning in settings.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    return settings


def _fail(problems: list[str], *, code: int) -> NoReturn:
    for problem in problems:
        typer.echo(f"Error: {problem}", err=True)
    raise typer.Exit(code)
