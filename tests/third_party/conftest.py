from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, DefaultHttpxClient

from tests.api.servers import ProxyServer
from tests.clients.conftest import demo, proxy
from tests.limits import PATIENCE

__all__ = ["demo", "proxy"]


@pytest.fixture
async def client(proxy: ProxyServer) -> AsyncIterator[AsyncOpenAI]:
    """Open the official client, for frameworks that take one."""
    async with proxy.client() as running:
        yield running


@pytest.fixture
def connections() -> Iterator[DefaultHttpxClient]:
    """Open connections for frameworks that block."""
    with DefaultHttpxClient(verify=False, timeout=PATIENCE) as http:
        yield http
