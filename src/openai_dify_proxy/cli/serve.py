"""The command ``serve``: it prepares what the worker processes need, and becomes their supervisor."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import typer

from openai_dify_proxy.cli.banner import banner
from openai_dify_proxy.cli.control_socket import open_control_socket
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.cli.listening import base_url, listen
from openai_dify_proxy.cli.serve_settings import Sources, check_settings, loaded
from openai_dify_proxy.cli.storage import storage_problems
from openai_dify_proxy.cli.supervision.handover import Supervised, become_supervisor, supervise
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy.telemetry.metrics.sharing import share_metrics


def serve_proxy(sources: Sources, *, check: str = "openai-dify-proxy check") -> None:
    """Serve until SIGTERM or Ctrl-C. ``check`` is the command that checks the apps, for the banner.

    Raises SystemExit after a second Ctrl-C or if no worker starts, CannotListen, and SettingsError if PICTURE_STORE
    cannot be used or the demo is missing.
    """
    settings = sources.load()
    needs_key = check_settings(settings)
    demo = needs_demo(settings)
    demo_images = demo and settings.replicate_api_token is None
    with ExitStack() as stack:
        sockets = listen(settings.host, settings.port)
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
        metrics = share_metrics()
        print(lines, flush=True)  # noqa: T201 - the command's output
        control, control_path = open_control_socket(sockets[0].getsockname()[1])
        reloads = sources.served_by(settings).to_json()
        parts = Supervised(sockets, loaded(served), reloads, control, control_path, metrics)
        if not demo:
            become_supervisor(parts)
        if code := supervise(parts):  # the demo's servers run in this process
            sys.exit(code)
