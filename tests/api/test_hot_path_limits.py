"""The hot path admits no request that the application rejects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from openai_dify_proxy.settings import SecretStr
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer
from tests.api.slots import MEMORY

BODY = {"model": "demo-chat", "messages": [{"role": "user", "content": "hi"}]}


async def status_of(
    proxy: ProxyServer, headers: Sequence[bytes] = (), *, body: bytes = json.dumps(BODY).encode()
) -> int:
    """Send a chat with these header lines, and return the status of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    fixed = (b"Host: localhost", b"Content-Type: application/json", b"Connection: close")
    lines = (b"POST /v1/chat/completions HTTP/1.1", *fixed, *headers, b"Content-Length: %d" % len(body))
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


async def test_an_empty_header_names_no_caller(serve: Serve) -> None:
    proxy = serve(api_keys=(SecretStr("secret-key"),), state_url=MEMORY)
    right = b"Authorization: Bearer secret-key"
    assert await status_of(proxy, [b"Authorization:", right]) == 200
    assert await status_of(proxy) == 401
    assert await status_of(proxy, [b"Authorization:"]) == 401
    assert await status_of(proxy, [right]) == 200


async def test_the_size_of_a_body_is_limited(serve: Serve) -> None:
    body = json.dumps(BODY).encode()
    proxy = serve(max_body_bytes=len(body), state_url=MEMORY)
    assert await status_of(proxy, body=body) == 200
    assert await status_of(proxy, body=body) == 200
    assert await status_of(proxy, body=body + b" ") == 413
