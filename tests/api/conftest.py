from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.demo import DEMO_APPS, INSTANT, DemoLog, DemoServer, Timing
from openai_dify_proxy.settings import Settings
from tests.api.servers import ProxyServer, app_settings, demo_apps
from tests.cli.program import Program

QUIET_WITHIN = 15.0
"""Seconds in which every turn of a test has ended upstream, at the latest."""

Serve = Callable[..., ProxyServer]


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoServer]:
    with DemoServer(timing=INSTANT) as running:
        yield running


@pytest.fixture(scope="session")
def pinging_demo() -> Iterator[DemoServer]:
    """A demo whose pings come every 50 ms."""
    with DemoServer(timing=Timing(token=0.0, ping=0.05, naming=0.0)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_proxy(demo: DemoServer) -> Iterator[ProxyServer]:
    with ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), default_app=None)) as running:
        yield running


@pytest.fixture
def log(demo: DemoServer) -> Iterator[DemoLog]:
    """What the demo is asked in this test. After it no turn may be left running."""
    demo.log.clear()
    yield demo.log
    demo.log.wait(lambda log: log.open_requests == 0, QUIET_WITHIN)


@pytest.fixture
def proxy(shared_proxy: ProxyServer, log: DemoLog) -> ProxyServer:
    """A proxy with all demo apps and default settings, as many tests share it."""
    return shared_proxy


@pytest.fixture
def serve(demo: DemoServer, log: DemoLog) -> Iterator[Serve]:
    """Start a proxy with settings of the test's own: ``serve(api_keys=("k",))``. The demo is its Dify."""
    with ExitStack() as stack:

        def start(**settings: Any) -> ProxyServer:
            settings.setdefault("dify_api_url", demo.url)
            settings.setdefault("apps", demo_apps(settings["dify_api_url"]))
            return stack.enter_context(ProxyServer(Settings(**settings)))

        yield start


@pytest.fixture(scope="session")
def raw_socket() -> Iterator[socket.socket]:
    """Where tests put a Dify of their own: ``raw_dify(answer, at=raw_socket)``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="session")
def raw_proxy(raw_socket: socket.socket) -> Iterator[ProxyServer]:
    """A proxy whose Dify is the test's own; its apps are ``raw-chat`` and so on, one for each mode."""
    url = f"http://127.0.0.1:{raw_socket.getsockname()[1]}/v1"
    apps = {f"raw-{app.mode}": app_settings(f"raw-{app.mode}", f"app-raw-{app.mode}", url) for app in DEMO_APPS}
    modes = {name: app.model_copy(update={"mode": name.removeprefix("raw-")}) for name, app in apps.items()}
    with ProxyServer(Settings(dify_api_url=url, apps=modes)) as running:
        yield running


@pytest.fixture
async def client(proxy: ProxyServer) -> AsyncIterator[AsyncOpenAI]:
    async with proxy.client() as openai:
        yield openai


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client for what the official one cannot send or would hide."""
    async with httpx2.AsyncClient(timeout=30, verify=False) as plain:
        yield plain


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The console script, in a process of its own."""
    return Program(tmp_path)
