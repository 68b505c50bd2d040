"""The command ``check``: query every configured service, and report failures."""

from __future__ import annotations

from contextlib import ExitStack

from openai_dify_proxy.cli.banner import concurrent_turns
from openai_dify_proxy.cli.check_apps import check_apps
from openai_dify_proxy.cli.check_images import check_images
from openai_dify_proxy.cli.check_output import CheckOutput
from openai_dify_proxy.cli.check_state import check_state
from openai_dify_proxy.cli.demo import demo_dify, demo_replicate, needs_demo
from openai_dify_proxy.settings import Settings


def check_all(settings: Settings, *, as_json: bool) -> bool:
    """Print the findings, and return whether every app and image model works, and the state can be written.

    Raises SettingsError if nothing is configured and the demo is missing.
    """
    out = CheckOutput(as_json=as_json)
    with ExitStack() as stack:
        demo_images = False
        if needs_demo(settings):
            out.remark("Nothing is configured, so this checks the demo apps.")
            settings = stack.enter_context(demo_dify(settings))
            if settings.replicate_api_token is None:
                settings = stack.enter_context(demo_replicate(settings))
                demo_images = True
                out.remark("REPLICATE_API_TOKEN is not set, so pictures come from the demo.")
        apps = check_apps(settings, out)
        images = check_images(settings, out, demo=demo_images)
        out.remark(f"Concurrent turns: {concurrent_turns(settings)}.")
        state = check_state(settings, out)
    works = apps and images and state
    out.finish(works)
    return works
