"""Running the proxy, the demo, or both in one process."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp
from uvicorn.supervisors.multiprocess import Multiprocess

from openai_dify_proxy.settings import AppSettings, Settings, is_loopback, to_environment
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy_demo import DEMO_APPS, DEMO_PACE, DemoServer, create_demo_app

if TYPE_CHECKING:
    from openai_dify_proxy_demo.replicate import DemoReplicate

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that a client's idle connection is kept: longer than clients and balancers keep theirs (5 to 60 s), so
that none sends a request into a connection that is just being closed."""

FACTORY = "openai_dify_proxy.app:create_app_from_environment"


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and what to do."""


def serve_proxy(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises CannotListen, and SettingsError for a PICTURE_STORE that cannot be used."""
    if settings.picture_store is not None:
        from openai_dify_proxy.pictures.service import open_picture_store  # noqa: PLC0415 - it loads Pillow

        open_picture_store(settings)
    with ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in listen(settings.host, settings.port)]
        demo = not settings.apps and settings.dify_api_url is None
        demo_images = demo and settings.replicate_api_token is None
        if demo:
            settings = with_demo(settings, stack.enter_context(DemoServer(timing=DEMO_PACE)).url)
        if demo_images:
            from openai_dify_proxy_demo.replicate import DEMO_PACE as PICTURE_PACE  # noqa: PLC0415 - it loads Pillow
            from openai_dify_proxy_demo.replicate import DemoReplicate  # noqa: PLC0415 - the same

            settings = with_demo_images(settings, stack.enter_context(DemoReplicate(timing=PICTURE_PACE)))
        # Only now: the demo's server silences uvicorn's log, which is the proxy's too.
        configure_logging(settings.log_level, settings.log_format)
        lines = banner(settings, base_url(settings.host, sockets), demo=demo, demo_images=demo_images)
        print(lines, flush=True)  # noqa: T201 - said to people
        if settings.workers == 1:
            from openai_dify_proxy.app import create_app  # noqa: PLC0415 - a parent of workers serves nothing itself

            run(create_app(settings), sockets, grace=settings.shutdown_grace)
        else:
            os.environ.update(to_environment(settings))
            config = server_config(FACTORY, grace=settings.shutdown_grace, workers=settings.workers, factory=True)
            Multiprocess(config, sockets).run()


def serve_demo(host: str, port: int) -> None:
    """Serve the scripted Dify alone until SIGTERM or Ctrl-C. Raises CannotListen."""
    configure_logging("warning")
    sockets = listen(host, port)
    print(demo_banner(base_url(host, sockets)), flush=True)  # noqa: T201 - said to people
    run(create_demo_app(timing=DEMO_PACE), sockets, grace=1)


def with_demo(settings: Settings, url: str) -> Settings:
    """``settings`` with the demo's apps, served by the demo at ``url``."""
    apps = {app.name: AppSettings(name=app.name, api_key=SecretStr(app.key), api_url=url) for app in DEMO_APPS}
    return settings.model_copy(update={"dify_api_url": url, "apps": apps, "default_app": DEMO_APPS[0].name})


def with_demo_images(settings: Settings, replicate: DemoReplicate) -> Settings:
    """``settings`` with pictures made by the demo."""
    return settings.model_copy(
        update={
            "replicate_api_url": replicate.url,
            "replicate_api_token": SecretStr(replicate.token),
            "replicate_output_hosts": (replicate.output_origin,),
            "image_upscaler": settings.image_upscaler or "nightmareai/real-esrgan",
        }
    )


def server_config(app: ASGIApp | str, *, grace: float, workers: int = 1, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        workers=workers,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here depends on the caller's address or scheme.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(grace),
    )


def run(app: ASGIApp, sockets: list[socket.socket], *, grace: float) -> None:
    """Serve ``app`` in this process until SIGTERM or Ctrl-C, and return then."""
    # After its graceful stop uvicorn raises the signal again; these handlers let the process end with exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(server_config(app, grace=grace)).run(sockets)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address that ``host`` stands for, all on one port. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"HOST {host} is no address of this machine: {error.strerror}") from error
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    for family, _, _, _, address in found:
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen_on(family, (address[0], taken, *address[2:])))
        except OSError as error:
            failures.append(error)
    # A name such as localhost may stand for an IPv6 address where there is no IPv6.
    fatal = [error for error in failures if not sockets or error.errno not in _NO_SUCH_ADDRESS]
    if fatal:
        for listener in sockets:
            listener.close()
        raise CannotListen(_why_not(fatal[0], host, port)) from fatal[0]
    return sockets


_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def _listen_on(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" serves IPv4 too; otherwise each address has a socket of its own.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _why_not(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} of {host} is in use. Choose another (--port), or stop what listens there."
        case errno.EACCES:
            return f"Port {port} needs more rights than this process has. Choose one above 1023 (--port)."
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine. Choose another (--host)."
        case _:
            return f"Cannot listen on {host}, port {port}: {error.strerror}."


def base_url(host: str, sockets: list[socket.socket]) -> str:
    """The address to show; port 0 has become a real one."""
    name = host.strip("[]")
    return f"http://{f'[{name}]' if ':' in name else name}:{sockets[0].getsockname()[1]}"


def banner(settings: Settings, url: str, *, demo: bool, demo_images: bool) -> str:
    lines = [f"OpenAI Dify Proxy {version('openai-dify-proxy')} serves {url}/v1"]
    if demo:
        lines.append("This is the demo: its apps only repeat what they are asked. Set DIFY_API_URL to serve your Dify.")
    if demo_images:
        lines.append("Its pictures are drawn, not generated. Set REPLICATE_API_TOKEN to have them made by Replicate.")
    apps = [f"{name} (default)" if name == settings.default_app else name for name in settings.apps]
    lines.append(f"  Models: {', '.join(apps) or 'the app whose Dify key a request brings'}")
    if settings.replicate_api_token is not None:
        images = [name for name in settings.image_models if name != settings.image_model]
        lines.append(f"  Image models: {', '.join([f'{settings.image_model} (default)', *images])}")
    lines.append(f"  Callers: {_who_may_call(settings)}")
    if demo:
        lines.append(f"Try it:\n  {curl_line(settings, url)}")
    if demo_images:
        lines.append(f"Make a picture:\n  {picture_line(settings, url)}")
    return "\n".join(lines)


def _who_may_call(settings: Settings) -> str:
    ways = []
    if settings.apps and settings.client_keys:
        ways.append("with a client key (Authorization: Bearer …)")
    elif settings.apps:
        ways.append("anyone on this machine" if is_loopback(settings.host) else "anyone who can connect")
    if settings.passthrough_keys:
        ways.append("with a Dify key of their own (DIFY_API_KEY: app-…)")
    return ", or ".join(ways) or "nobody, since no apps are configured and PASSTHROUGH_KEYS is off"


def curl_line(settings: Settings, url: str) -> str:
    """A line that streams an answer of the demo, as it is; the demo's keys are no secrets."""
    key = _CLIENT_KEY if settings.client_keys else ""
    if settings.client_keys and settings.passthrough_keys:
        key = f"-H 'DIFY_API_KEY: {DEMO_APPS[0].key}' "
    body = f'{{"model": "{DEMO_APPS[0].name}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    return f"curl -N {_reachable(url)}/v1/chat/completions -H 'Content-Type: application/json' {key}-d '{body}'"


def picture_line(settings: Settings, url: str) -> str:
    """A line that makes a picture, as it is where no client keys are set: pictures take one."""
    headers = f"-H 'Content-Type: application/json' {_CLIENT_KEY if settings.client_keys else ''}-H 'Accept: image/*'"
    tuning = "-H 'X-Output-Format: png' -H 'X-Replicate-Seed: 7'"
    body = '{"prompt": "A lighthouse at dusk"}'
    return f"curl -f {_reachable(url)}/v1/images/generations {headers} {tuning} -d '{body}' -o picture.png"


_CLIENT_KEY = "-H 'X-API-Key: YOUR_KEY' "


def _reachable(url: str) -> str:
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def demo_banner(url: str) -> str:
    lines = [f"A scripted Dify serves {url}/v1", "  Keys of its apps:"]
    lines += [f"    {app.key:<24}{app.mode:<16}{app.description}" for app in DEMO_APPS]
    lines.append(f"  To use it through the proxy: DIFY_API_URL={url}/v1 DIFY_API_KEY={DEMO_APPS[0].key}")
    return "\n".join(lines)
