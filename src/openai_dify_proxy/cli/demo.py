"""The command ``demo``, and the demo's servers for commands that run with nothing configured.

The demo is a separate distribution, which the extra ``demo`` installs. It may be missing, so only the functions that
use it import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec

from openai_dify_proxy.cli.listening import base_url, listen
from openai_dify_proxy.settings import AppSettings, SecretStr, Settings, SettingsError, is_loopback
from openai_dify_proxy.settings.extras import install_command
from openai_dify_proxy.telemetry import configure_logging

PUBLIC_DEMO = "Warning: the demo is a test double, and its keys are public. Do not expose it to a network."


def serve_demo(settings: Settings, *, slots: int | None = None) -> None:
    """Serve the demo Dify until SIGTERM or Ctrl-C. It serves at most ``slots`` connections at a time.

    Raises CannotListen, and SettingsError if the demo is not installed.
    """
    _require_demo(f"The demo is not installed. Install it: {install_command('demo')}")
    from openai_dify_proxy.cli.server import run, server_config  # it loads uvicorn
    from openai_dify_proxy.server import http_limits
    from openai_dify_proxy_demo import DEMO_PACE, create_demo_app
    from openai_dify_proxy_demo.slots import limit_connections

    configure_logging("warning")
    sockets = listen(settings.host, settings.port)
    print(_banner(settings.host, base_url(settings.host, sockets)), flush=True)  # noqa: T201 - the command's output
    app = create_demo_app(timing=DEMO_PACE)
    config = server_config(app, http_limits(settings), grace=settings.shutdown_grace)
    if slots is not None:
        limit_connections(config, app, slots)
    run(config, sockets)


def needs_demo(settings: Settings) -> bool:
    """Return whether no Dify and no app is configured. Raises SettingsError if so and the demo is missing."""
    if settings.apps or settings.dify_api_url is not None:
        return False
    _require_demo(
        "Nothing is configured, and the demo is not installed. "
        f"Set DIFY_API_URL to the address of a Dify, or install the demo: {install_command('demo')}"
    )
    return True


@contextmanager
def demo_dify(settings: Settings, *, paced: bool = False) -> Iterator[Settings]:
    """Serve the demo Dify, and yield ``settings`` with its apps. With ``paced`` it answers as slowly as a model."""
    from openai_dify_proxy_demo import DEMO_APPS, DEMO_PACE, INSTANT, DemoServer

    with DemoServer(timing=DEMO_PACE if paced else INSTANT) as server:
        apps = {
            app.name: AppSettings(name=app.name, api_key=SecretStr(app.key), api_url=server.url) for app in DEMO_APPS
        }
        yield replace(settings, dify_api_url=server.url, apps=apps, default_app=DEMO_APPS[0].name)


@contextmanager
def demo_replicate(settings: Settings, *, paced: bool = False) -> Iterator[Settings]:
    """Serve the demo Replicate, and yield ``settings`` for it. Raises SettingsError if the demo is not installed."""
    _require_demo(
        "REPLICATE_API_TOKEN is not set, and the demo is not installed. "
        f"Set the token, or install the demo: {install_command('demo')}"
    )
    from openai_dify_proxy_demo.replicate import DEMO_PACE, INSTANT, DemoReplicate  # it loads Pillow

    with DemoReplicate(timing=DEMO_PACE if paced else INSTANT) as replicate:
        yield replace(
            settings,
            replicate_api_url=replicate.url,
            replicate_api_token=SecretStr(replicate.token),
            replicate_output_hosts=(replicate.output_origin,),
            image_upscaler=settings.image_upscaler or "nightmareai/real-esrgan",
        )


def _require_demo(problem: str) -> None:
    if find_spec("openai_dify_proxy_demo") is None:
        raise SettingsError([problem])


def _banner(host: str, url: str) -> str:
    from openai_dify_proxy_demo import DEMO_APPS

    lines = [f"The demo Dify serves {url}/v1"]
    if not is_loopback(host):
        lines.append(PUBLIC_DEMO)
    lines.append("  Keys of its apps:")
    lines += [f"    {app.key:<24}{app.mode:<16}{app.description}" for app in DEMO_APPS]
    lines.append("To serve it through the proxy:")
    lines.append(f"  DIFY_API_URL={url}/v1 DIFY_API_KEY={DEMO_APPS[0].key} openai-dify-proxy serve")
    return "\n".join(lines)
