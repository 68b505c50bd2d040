"""An HTTP proxy: tunnels by CONNECT, and forwarding of requests in absolute form. Every name means 127.0.0.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.api.servers import serving


@dataclass
class TestProxy:
    """``requests`` are the request lines without the version; ``authorizations`` the headers that came with them."""

    __test__ = False

    answer: bytes = b""
    """The answer to every CONNECT, instead of a tunnel."""
    url: str = ""
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.requests.append(f"{method} {target}")
        self.authorizations.append(headers.get("proxy-authorization"))
        if method == "CONNECT" and self.answer:
            writer.write(self.answer)
            writer.close()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, back = await asyncio.open_connection("127.0.0.1", parts.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head.replace(target, parts.path, 1).encode("latin-1"))
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def http_proxy(answer: bytes = b"", login: str = "") -> AsyncIterator[TestProxy]:
    """Run a proxy. Its URL contains ``login``, such as ``user:password@``."""
    proxy = TestProxy(answer)
    async with serving(proxy.serve) as port:
        proxy.url = f"http://{login}127.0.0.1:{port}"
        yield proxy
