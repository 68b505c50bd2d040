"""The command ``serve``: the supervisor of the worker processes that serve the API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

import structlog
import typer

from openai_dify_proxy.cli.banner import banner
from openai_dify_proxy.cli.control_socket import ControlSocket
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.cli.key_commands import has_stored_keys
from openai_dify_proxy.cli.listening import base_url, listen
from openai_dify_proxy.cli.storage import storage_problems
from openai_dify_proxy.cli.supervisor import Supervisor
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy.telemetry.metrics.sharing import shared_metrics

log = structlog.get_logger(__name__)

RESTART_ONLY = ("host", "port")


def serve_proxy(load: Callable[[], Settings], *, check: str = "openai-dify-proxy check") -> None:
    """Serve until SIGTERM or Ctrl-C. ``check`` is the command that checks the apps, for the banner.

    ``load`` reads the settings, again for each reload. Raises SystemExit after a second Ctrl-C or if no worker starts,
    CannotListen, and SettingsError if PICTURE_STORE cannot be used or the demo is missing.
    """
    settings = load()
    _check_picture_store(settings)
    needs_key = require_client_keys(settings)
    demo = needs_demo(settings)
    demo_images = demo and settings.replicate_api_token is None
    with ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in listen(settings.host, settings.port)]
        served = settings
        if demo:
            served = stack.enter_context(demo_dify(served, paced=True))
        if demo_images:
            served = stack.enter_context(demo_replicate(served, paced=True))
        # After the start of the demo's servers: they silence uvicorn's log, which the proxy shares.
        configure_logging(settings.log_level, settings.log_format)
        for problem in storage_problems(served):
            typer.echo(f"Warning: {problem}", err=True)
        url = base_url(settings.host, sockets)
        lines = banner(served, url, demo=demo, demo_images=demo_images, check=check, needs_key=needs_key)
        stack.enter_context(shared_metrics())
        print(lines, flush=True)  # noqa: T201 - the command's output
        control = stack.enter_context(ControlSocket(sockets[0].getsockname()[1]))
        supervisor = Supervisor(sockets, served, lambda: _reload(load, settings), control)
        if code := supervisor.run():
            sys.exit(code)


def require_client_keys(settings: Settings) -> bool:
    """Return whether requests will need a client key.

    Raises SettingsError if they will not although anyone could then spend the server's credentials. If the state cannot
    be read, the server starts, and refuses all requests until it can.
    """
    needs_key = settings.number_of_keys > 0 or has_stored_keys(settings) is not False
    if settings.unprotected is not None and not needs_key:
        raise SettingsError([settings.unprotected])
    return needs_key


def _reload(load: Callable[[], Settings], first: Settings) -> Settings:
    """Read the settings again. ``first`` are those of the start. Raises SettingsError."""
    settings = load()
    _check_picture_store(settings)
    require_client_keys(settings)
    if needs_demo(settings):
        raise SettingsError(["The demo has no settings to reload. Set DIFY_API_URL, or restart the server."])
    changed = [name.upper() for name in RESTART_ONLY if getattr(settings, name) != getattr(first, name)]
    if changed:
        log.warning("restart_required", settings=", ".join(changed))
    configure_logging(settings.log_level, settings.log_format)
    return settings


def _check_picture_store(settings: Settings) -> None:
    if settings.picture_store is not None:
        open_picture_store(settings)
