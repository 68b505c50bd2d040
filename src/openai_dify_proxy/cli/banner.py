"""The lines that ``serve`` prints at its start."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from openai_dify_proxy.cli.demo import PUBLIC_DEMO
from openai_dify_proxy.cli.listening import EVERY_ADDRESS
from openai_dify_proxy.settings import Settings, is_loopback
from openai_dify_proxy.turns.admission.auto_limit import LOWEST_LIMIT
from openai_dify_proxy.turns.admission.limits import has_limit


def banner(settings: Settings, url: str, *, demo: bool, demo_images: bool, check: str, needs_key: bool) -> str:
    """Return the lines that ``serve`` prints at its start, with commands to try where the demo is served.

    ``check`` is the command that checks the configured apps. ``needs_key`` says whether requests need a client key.
    """
    lines = [f"OpenAI Dify Proxy {version('openai-dify-proxy')} serves {url}/v1"]
    if settings.host.strip("[]") in EVERY_ADDRESS:
        lines.append(f"  It listens on every network ({settings.host}): other machines use the address of this one.")
    if demo:
        lines.append(
            f"No Dify is configured: DIFY_API_URL is neither in the environment nor in a .env in {Path.cwd()}.\n"
            "These are demo apps without a model: they repeat the question, and act on keywords in it (docs/demo.md)."
        )
    if demo and not is_loopback(settings.host):
        lines.append(PUBLIC_DEMO)
    if demo_images:
        lines.append("The pictures are placeholders. Set REPLICATE_API_TOKEN to generate images with Replicate.")
    apps = [f"{name} (default)" if name == settings.default_app else name for name in settings.apps]
    lines.append(f"  Models: {', '.join(apps) or 'the app whose Dify key a request carries'}")
    if images := _image_models(settings):
        lines.append(f"  Image models: {', '.join(images)}")
    lines.append(f"  Callers: {_callers(settings, needs_key=needs_key)}")
    lines.append(f"  Concurrent turns: {concurrent_turns(settings)}")
    if demo:
        lines.append(f"Try it:\n  {_chat_line(settings, url, needs_key=needs_key)}")
    if demo_images:
        lines.append(f"Generate a picture:\n  {_picture_line(url, needs_key=needs_key)}")
    if not demo:
        lines.append(f"Check the apps: {check}")
    return "\n".join(lines)


def _image_models(settings: Settings) -> list[str]:
    """Return the names of the image models that are served: without a Replicate token, those of Dify apps."""
    replicate = settings.replicate_api_token is not None
    names = [name for name, model in settings.image_models.items() if replicate or model.app is not None]
    names = list(dict.fromkeys([settings.image_model, *names])) if replicate else names
    return [f"{name} (default)" if name == settings.image_model else name for name in names]


def concurrent_turns(settings: Settings) -> str:
    """Describe the limit of concurrent turns, without a full stop."""
    urls = [settings.dify_api_url, *(app.api_url for app in settings.apps.values())]
    limit = settings.dify_max_concurrent
    if not any(url and has_limit(settings, url) for url in urls):
        return "no limit"
    shown = f"as many as Dify serves, from {LOWEST_LIMIT} on" if limit == "auto" else f"{limit}"
    return f"{shown}; {settings.max_queued_turns} more wait"


def _callers(settings: Settings, *, needs_key: bool) -> str:
    dify_key = "Dify key (header DIFY_API_KEY: app-…)"
    if not settings.apps:
        return f"anyone with a {dify_key}" if settings.passthrough_keys else _NO_CALLERS
    if needs_key:
        callers = "anyone with a client key (Authorization: Bearer …)"
        return f"{callers}, or with a {dify_key}" if settings.passthrough_keys else callers
    callers = "anyone on this machine" if is_loopback(settings.host) else "anyone who can connect"
    return f"{callers}; a request may bring its own {dify_key}" if settings.passthrough_keys else callers


_NO_CALLERS = "nobody: no apps are configured and PASSTHROUGH_KEYS is off"


def _chat_line(settings: Settings, url: str, *, needs_key: bool) -> str:
    """Return a complete command that streams an answer of the demo, whose keys are not secret."""
    assert settings.default_app is not None
    app = settings.apps[settings.default_app]
    key = _CLIENT_KEY if needs_key else ""
    if needs_key and settings.passthrough_keys:
        key = f"-H 'DIFY_API_KEY: {app.api_key.get_secret_value()}' "
    body = f'{{"model": "{app.name}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    chat = f"curl -sSN {url}/v1/chat/completions -H 'Content-Type: application/json' {key}-d '{body}'"
    return f"{chat} | {_ONLY_TEXT}"


def _picture_line(url: str, *, needs_key: bool) -> str:
    """Return a command that generates a picture. The user must fill in a client key if there are any."""
    key = _CLIENT_KEY if needs_key else ""
    headers = f"-H 'Content-Type: application/json' {key}-H 'Accept: image/*'"
    tuning = "-H 'X-Output-Format: png' -H 'X-Replicate-Seed: 7'"
    body = '{"prompt": "A lighthouse at dusk"}'
    address = f"{url}/v1/images/generations"
    return f"curl -sS --fail-with-body {address} {headers} {tuning} -d '{body}' -o picture.png"


_ONLY_TEXT = """grep --line-buffered -oE '"(content|message)":"[^"]*"'"""
"""Shows the text of each chunk, or of an error, on a separate line."""

_CLIENT_KEY = "-H 'X-API-Key: YOUR_KEY' "
