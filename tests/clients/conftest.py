from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import INSTANT, DemoServer
from tests.api.servers import ProxyServer, counted_seconds, demo_apps
from tests.limits import PATIENCE


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    """Start a demo Dify for one test."""
    with DemoServer(timing=INSTANT, clock=counted_seconds()) as running:
        yield running


@pytest.fixture
def proxy(demo: DemoServer, tmp_path: Path) -> Iterator[ProxyServer]:
    """Start a proxy that serves all demo apps, with its own state."""
    state = SecretStr(f"sqlite:///{tmp_path}/state.db")
    with ProxyServer(
        Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), state_url=state, dify_max_concurrent="off")
    ) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """Open an HTTP client that sends requests exactly as written."""
    async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as plain:
        yield plain
