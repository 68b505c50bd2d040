"""Downloads from the output origin, with the faults that a prompt requests."""

from __future__ import annotations

import asyncio
import functools
import struct
import time
import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from openai_dify_proxy_demo.replicate.log import LeakedToken, LoggedDownload
from openai_dify_proxy_demo.replicate.rendering import Rendered
from openai_dify_proxy_demo.replicate.script import MAX_SIZE, ReplicateScript
from openai_dify_proxy_demo.replicate.state import ReplicateState, StoredOutput

BOMB_SIDE = 30_000
"""Width and height of the decompression bomb."""

HUGE = 40_000_000
"""The number of bytes of `HUGE` without a number."""

PRIVATE_ADDRESS = "http://10.0.0.1/latest/meta-data/"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><script>alert(1)</script></svg>'
PAGE = b"<!doctype html><title>Sign in</title><script>alert(1)</script>"


def with_scripted_content(script: ReplicateScript, rendered: Rendered) -> Rendered:
    """Return the output, or the invalid content that the script requests instead."""
    if script.has("NOTAPICTURE"):
        return Rendered(PAGE, "text/html", rendered.extension)
    if script.has("SVG"):
        return Rendered(SVG, "image/svg+xml", "svg")
    if script.has("BOMB"):
        return Rendered(bomb(), "image/png", "png")
    if script.has("TRUNCATED"):
        return Rendered(rendered.data[: len(rendered.data) // 2], rendered.media_type, rendered.extension)
    return rendered


async def serve_output(request: Request) -> Response:
    """Serve an output, and log the download and any token it carries."""
    state: ReplicateState = request.app.state.demo
    path = request.url.path
    if authorization := request.headers.get("authorization"):
        leak = LeakedToken(path, authorization)
        state.log.change(lambda: state.log.leaked_tokens.append(leak))
    stored = state.output(path)
    response = _answer(request, stored) if stored else PlainTextResponse("Not Found", 404)
    entry = LoggedDownload(request.method, path, response.status_code, time.monotonic())
    state.log.change(lambda: state.log.downloads.append(entry))
    return response


def _answer(request: Request, stored: StoredOutput) -> Response:
    script = stored.script
    if script.has("GONE"):
        return PlainTextResponse("Not Found", 404)
    if script.has("REDIRECT_PRIVATE"):
        return RedirectResponse(PRIVATE_ADDRESS, 302)
    if script.has("REDIRECT_LOOP"):
        return RedirectResponse(str(request.url), 302)
    if script.has("REDIRECT") and "again" not in request.query_params:
        return RedirectResponse(str(request.url.include_query_params(again="1")), 302)
    return _content(stored, script)


def _content(stored: StoredOutput, script: ReplicateScript) -> Response:
    data, media_type = stored.rendered.data, stored.rendered.media_type
    if script.has("ENDLESS"):
        return StreamingResponse(_endless(data), media_type=media_type)
    size = str(min(int(script.number("HUGE", HUGE)), MAX_SIZE)) if script.has("HUGE") else str(len(data))
    headers = {"content-length": size, "cache-control": "public, max-age=3600"}
    if script.has("HUGE"):
        return StreamingResponse(_padded(data, int(size)), media_type=media_type, headers=headers)
    if script.has("CUTBODY"):
        return StreamingResponse(_slowly(data[: len(data) // 2], 0), media_type=media_type, headers=headers)
    if script.has("SLOWBODY"):
        seconds = script.number("SLOWBODY", 2)
        return StreamingResponse(_slowly(data, seconds), media_type=media_type, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


async def _slowly(data: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = max(1, len(data) // 20)
    for start in range(0, len(data), step):
        yield data[start : start + step]
        await asyncio.sleep(seconds / 20)


async def _padded(data: bytes, size: int) -> AsyncIterator[bytes]:
    yield data[:size]
    for start in range(len(data), size, 65536):
        yield bytes(min(65536, size - start))


async def _endless(data: bytes) -> AsyncIterator[bytes]:
    yield data
    while True:
        yield bytes(65536)
        await asyncio.sleep(0)  # lets the server notice a disconnect


@functools.cache
def bomb() -> bytes:
    """Return a small PNG that decodes to 900 million pixels."""
    row = bytes(1 + (BOMB_SIDE + 7) // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row * 100) for _ in range(BOMB_SIDE // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
