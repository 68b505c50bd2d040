"""Requests do not wait until all of very many streams are served that have news at the same moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openai_dify_proxy.settings import Settings
from tests.api.chat_requests import chat_body
from tests.api.raw_client import Client, until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawDify,
    RawRequest,
    app_settings,
    chunk,
    message_frame,
    raw_dify,
)
from tests.api.slots import MEMORY
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

STREAMS = 400
"""To serve them takes much longer than a slice of time."""


@asynccontextmanager
async def blocked(loop: MovableLoop) -> AsyncIterator[None]:
    """Block the proxy's event loop, so that it finds all news at once."""
    begun, end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        end.wait(PATIENCE)

    loop.call_soon_threadsafe(block)
    await asyncio.to_thread(begun.wait, PATIENCE)
    try:
        yield
    finally:
        end.set()


def chat_settings(dify: RawDify) -> Settings:
    return Settings(
        dify_api_url=dify.url,
        apps={"raw": app_settings("raw", "app-raw", dify.url, mode="chat")},
        dify_max_concurrent="off",
        state_url=MEMORY,
        metrics_open=True,
    )


class Scrape:
    """A request for the metrics, which say how many streams were open when it was served."""

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)

    def send(self) -> None:
        self._writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")

    async def open_streams(self) -> float:
        answer = await self._reader.read()
        self._writer.close()
        await self._writer.wait_closed()
        (line,) = [line for line in answer.decode().splitlines() if line.startswith("openai_dify_proxy_open_streams ")]
        return float(line.split()[1])


async def test_a_request_is_answered_while_streams_end() -> None:
    may_end = asyncio.Event()
    ended = 0

    async def answer(_: RawRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await may_end.wait()
        writer.write(chunk(END) + LAST_CHUNK)
        ended += 1

    loop = MovableLoop()
    async with raw_dify(answer) as dify:
        with ProxyServer(chat_settings(dify), loop=loop) as proxy:
            first = Client(proxy.port)  # the application serves it, since the app's profile is not known yet
            await first.ask("hi", "raw", stream=True)
            await first.read_until(b"one")
            clients = [Client(proxy.port) for _ in range(STREAMS)]
            for client in clients:
                await client.ask("hi", "raw", stream=True)
            for client in clients:
                await client.read_until(b"one")
            first_scrape, scrape = Scrape(), Scrape()  # the first one loads modules
            await first_scrape.connect(proxy.port)
            first_scrape.send()
            assert await first_scrape.open_streams() == 1 + STREAMS
            await scrape.connect(proxy.port)
            async with blocked(loop):
                may_end.set()
                await until(lambda: ended == 1 + STREAMS)
                scrape.send()
            assert await scrape.open_streams() > 0
            for client in (first, *clients):
                await client.read_until(b"[DONE]")
                await client.disconnect()


async def test_requests_that_arrive_at_once_and_in_pieces_are_answered() -> None:
    """Some of their clients leave before it is their turn."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame(f"{request.body['query']}.")) + chunk(END) + LAST_CHUNK)

    def request(number: int) -> bytes:
        body = json.dumps(chat_body(f"question{number}", "raw"))
        head = "POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"
        return "\r\n".join((*head, "Connection: close", f"Content-Length: {len(body)}", "", body)).encode()

    loop = MovableLoop()
    async with raw_dify(answer) as dify:
        with ProxyServer(chat_settings(dify), loop=loop) as proxy:
            clients = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(STREAMS)]
            async with blocked(loop):
                for number, (_, writer) in enumerate(clients):
                    writer.write(request(number)[: 40 + number % 80])
            for number, (_, writer) in enumerate(clients):
                if number % 4:
                    writer.write(request(number)[40 + number % 80 :])
                else:
                    writer.transport.abort()
            for number, (reader, writer) in enumerate(clients):
                if number % 4:
                    received = await asyncio.wait_for(reader.read(), PATIENCE)
                    assert received.startswith(b"HTTP/1.1 200 ")
                    assert f'"content":"question{number}."'.encode() in received
                    writer.close()
                    await writer.wait_closed()
        assert len(dify.turns) == STREAMS - STREAMS // 4


async def test_the_head_of_the_next_request_arrives_before_its_predecessor_starts() -> None:
    """A request that waits for its turn leaves the headers of the next one alone."""
    asked: list[str] = []

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        asked.append(request.body["query"])
        writer.write(SSE_HEAD + chunk(message_frame("one")) + chunk(END) + LAST_CHUNK)

    async with raw_dify(answer) as dify:
        with ProxyServer(chat_settings(dify), loop=MovableLoop()) as proxy:
            first = Client(proxy.port)  # the profile of the app is known then, so the hot path serves
            await first.ask("known", "raw", stream=True)
            await first.read_until(b"[DONE]")
            await first.disconnect()
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            before, after = whole_chat("before", proxy.port), whole_chat("after", proxy.port)
            cut = after.index(b"X-Last")
            writer.write(before + after[:cut])
            await until(lambda: "before" in asked)
            writer.write(after[cut:])
            answers = b""
            async with asyncio.timeout(PATIENCE):
                while answers.count(b'"content":"one"') < 2:
                    received = await reader.read(65536)
                    assert received, answers
                    answers += received
            assert asked == ["known", "before", "after"]
            writer.close()
            await writer.wait_closed()


def whole_chat(question: str, port: int) -> bytes:
    """Return a request whose length is declared early in its head."""
    body = json.dumps(chat_body(question, "raw"))
    lines = "POST /v1/chat/completions HTTP/1.1", f"Content-Length: {len(body)}", f"Host: 127.0.0.1:{port}"
    return "\r\n".join((*lines, "Content-Type: application/json", "X-Last: 1", "", body)).encode()
