"""A Dify whose answers never end, and a proxy in front of it."""

from __future__ import annotations

import asyncio
from typing import Any

from openai_dify_proxy.settings import Settings
from tests.api.servers import SSE_HEAD, ProxyServer, RawDify, RawRequest, app_settings, chunk, message_frame
from tests.movable_time import MovableLoop

PIECE = chunk(message_frame("x" * 4000))


class Flood:
    """Answers every turn with text that never ends, and counts the bytes that the kernel has taken."""

    def __init__(self) -> None:
        self.written = 0

    async def __call__(self, _request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has all bytes
        writer.write(SSE_HEAD)
        while True:
            writer.write(PIECE)
            await writer.drain()
            self.written += len(PIECE)


def flooded_proxy(dify: RawDify, *, loop: MovableLoop | None = None, **settings: Any) -> ProxyServer:
    """Return a proxy with the model ``raw``, an app of ``dify``."""
    apps = {"raw": app_settings("raw", "app-raw", dify.url)}
    return ProxyServer(Settings(dify_api_url=dify.url, apps=apps, **settings), loop=loop)
