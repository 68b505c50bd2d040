"""The command ``check``: query every configured service, and report failures."""

from __future__ import annotations

from contextlib import ExitStack

import typer

from openai_dify_proxy.cli.banner import concurrent_turns
from openai_dify_proxy.cli.check_apps import check_apps
from openai_dify_proxy.cli.check_images import check_images
from openai_dify_proxy.cli.check_state import check_state
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.settings import Settings


def check_all(settings: Settings) -> bool:
    """Print the findings, and return whether every app and image model works, and the state can be written.

    Raises SettingsError if nothing is configured and the demo is missing.
    """
    with ExitStack() as stack:
        demo_images = False
        if needs_demo(settings):
            typer.echo("Nothing is configured, so this checks the demo apps.")
            settings = stack.enter_context(demo_dify(settings))
            if settings.replicate_api_token is None:
                settings = stack.enter_context(demo_replicate(settings))
                demo_images = True
                typer.echo("REPLICATE_API_TOKEN is not set, so pictures come from the demo.")
        apps = check_apps(settings)
        images = check_images(settings, demo=demo_images)
        typer.echo(f"Concurrent turns: {concurrent_turns(settings)}.")
        state = check_state(settings)
    return apps and images and state
