"""Answers of a hostile upstream with endless heads, trailers or ids: bounded, and the client gets an error."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest

from openai_dify_proxy.upstream.connection import MAX_HEAD_BYTES
from openai_dify_proxy.upstream.endpoints import parse_url
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.chat_requests import chat_body, error_of
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    chunk,
    frame,
    message_frame,
    raw_dify,
    scripted,
    serving,
)
from tests.limits import PATIENCE

Answer = Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]

STATUS = b"HTTP/1.1 200 OK\r\n"

# The bytes sent first, and the bytes repeated until the connection ends.
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (STATUS, b"A: b\r\n"),
    "many headers": (STATUS, b"".join(b"A%d: b\r\n" % number for number in range(1000))),
    "a header's value": (STATUS + b"A: ", b"x" * 1000),
    "a header's name": (STATUS, b"x" * 1000),
    "a reason": (b"HTTP/1.1 200 ", b"x" * 1000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a folded header": (STATUS + b"A: b", b"\r\n " + b"x" * 1000),
}
ENDLESS_TRAILERS: dict[str, tuple[bytes, bytes]] = {
    "trailers": (SSE_HEAD + chunk(message_frame("Hi")) + b"0\r\n", b"A: b\r\n"),
    "a trailer's value": (SSE_HEAD + chunk(message_frame("Hi")) + b"0\r\nA: ", b"x" * 1000),
    "a chunk's extension": (SSE_HEAD + chunk(message_frame("Hi")) + b"1;", b"x" * 1000),
}


def endless(first: bytes, again: bytes) -> Answer:
    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


@pytest.mark.parametrize(("first", "again"), ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_head_ends_the_connection(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, first: bytes, again: bytes
) -> None:
    async with raw_dify(endless(first, again), at=raw_socket):
        reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat"))
    assert reply.status_code == 502


@pytest.mark.parametrize(("first", "again"), ENDLESS_TRAILERS.values(), ids=ENDLESS_TRAILERS)
async def test_endless_trailers_end_the_connection(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, first: bytes, again: bytes
) -> None:
    async with raw_dify(endless(first, again), at=raw_socket):
        reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat"))
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_incomplete")


async def test_the_error_names_the_limit(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    async with raw_dify(endless(*ENDLESS["headers"]), at=raw_socket):
        reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat"))
    assert error_of(reply)["message"] == "Dify's answer has more than 65536 bytes of headers."
    assert error_of(reply)["code"] == "upstream_error"


@asynccontextmanager
async def answered(head: bytes, body: bytes) -> AsyncIterator[Exchange]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with serving(serve) as port:
        client = HttpClient(connect_timeout=PATIENCE)
        exchange = await client.exchange("GET", parse_url(f"http://127.0.0.1:{port}/"), b"")
        yield exchange
        await client.close()


@pytest.mark.parametrize("length", [20, 1000, 1 << 20])
async def test_a_head_may_be_as_large_as_the_limit(length: int) -> None:
    last = b"Content-Length: %d\r\n\r\n" % length
    head = STATUS + b"A: " + b"x" * (MAX_HEAD_BYTES - len(STATUS) - len(last) - len(b"A: \r\n")) + b"\r\n"
    assert len(head + last) == MAX_HEAD_BYTES
    async with answered(head, b"y" * length) as exchange:
        assert await exchange.read_all(2 * length) == b"y" * length
        assert (exchange.status, exchange.broken, exchange.head_too_large) == (200, False, False)
    async with answered(head.replace(b"A:", b"AA:"), b"y" * length) as exchange:
        assert await exchange.read_all(2 * length) == b""
        assert (exchange.status, exchange.broken, exchange.head_too_large) == (None, True, True)


@pytest.mark.parametrize(
    "odd",
    ["a\r\nSet-Cookie: b=c", "漢", "é", "x" * 1_000_000, "a b", "\x00"],
    ids=["crlf", "cjk", "é", "long", "space", "nul"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_ids_that_no_header_can_hold(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, odd: str, stream: bool
) -> None:
    frames = [frame("message", answer="Hi", message_id=odd, conversation_id=odd), END]
    answer = scripted([SSE_HEAD, *(chunk(one) for one in frames), LAST_CHUNK])
    async with raw_dify(answer, at=raw_socket):
        reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=stream))
    assert reply.status_code == 200
    assert "Hi" in reply.text
    assert "set-cookie" not in reply.headers
    assert "x-dify-conversation-id" not in reply.headers
    assert sum(len(name) + len(value) for name, value in reply.headers.items()) < 1000
