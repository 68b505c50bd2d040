"""How a left turn is stopped, shown by a Dify that behaves worse than the demo."""

from __future__ import annotations

import asyncio
import socket

import httpx2
import pytest

from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.raw_client import Client, settled, until
from tests.api.servers import (
    SSE_HEAD,
    TASK,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    frame,
    message_frame,
    raw_dify,
)
from tests.limits import PATIENCE


async def test_the_stream_is_drained_after_the_stop_and_closed_at_its_end(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    """An old Dify stores an empty answer when its stream is dropped; it must be able to say its last words."""
    finished = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await dify.stopped.wait()
        writer.write(chunk(message_frame("two")))
        await writer.drain()
        writer.write(chunk(frame("message_end", metadata={})) + b"0\r\n\r\n")
        await writer.drain()
        finished.set()

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat", stream=True)
        await client.read_until(b"one")
        await client.disconnect()
        await asyncio.wait_for(finished.wait(), PATIENCE)
        (stop,) = dify.stops
        assert stop.path == f"/v1/chat-messages/{TASK}/stop"
        assert stop.body == {"user": dify.turns[0].body["user"]}
        assert stop.headers["authorization"] == "Bearer app-raw-chat"


async def test_a_dify_that_does_not_obey_is_left_after_a_while(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    left = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await dify.stopped.wait()
        try:
            while True:
                writer.write(chunk(message_frame("on and on")))
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            left.set()

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat")
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        await asyncio.wait_for(left.wait(), PATIENCE)


async def test_the_id_may_come_in_any_event_and_cut_anywhere(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    """A client that leaves between the two halves of the first event."""
    halves = frame("agent_thought", thought="hm")
    go_on = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(b"event: ping\n\n", halves[:40]))
        await go_on.wait()
        writer.write(chunk(halves[40:]))
        await dify.stopped.wait()

    async with raw_dify(answer, "agent-chat", at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-agent-chat")
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        go_on.set()
        await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
        assert TASK in dify.stops[0].path


async def test_a_left_turn_that_fails_needs_no_stop(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    go_on = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(SSE_HEAD + chunk(frame("error", code="invalid_param", status=400, message="no")) + b"0\r\n\r\n")

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat", stream=True)
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        go_on.set()
        async with httpx2.AsyncClient(verify=False) as http:
            reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=True))
        assert reply.status_code == 502
        assert not dify.stops


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_its_turn_is_sent(serve: Serve, stream: bool) -> None:
    """While Dify is still asked what kind of app it is: then no turn is begun, or it is stopped as any other."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await dify.stopped.wait()

    async with raw_dify(answer) as dify:
        dify.describing = asyncio.Event()
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)})
        client = Client(proxy.port)
        await client.ask("hi", "raw", stream=stream)
        await until(lambda: bool(dify.requests))
        await client.disconnect()
        dify.describing.set()
        async with httpx2.AsyncClient(verify=False) as http:
            models = await http.get(f"{proxy.url}/models/raw")
        assert models.json()["dify"]["mode"] == "chat"
        await until(lambda: len(dify.turns) == len(dify.stops), PATIENCE)


async def test_a_client_that_does_not_read_holds_dify_back_until_it_leaves(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    """What it does not take is not collected in the proxy's memory, however much Dify has to say."""
    sent = 0
    piece = chunk(message_frame("x" * 60_000))

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(SSE_HEAD)
        while not dify.stopped.is_set():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat", stream=True)
        await client.read_until(b"xxx")
        await settled(lambda: sent)
        assert sent < 64 * 1024 * 1024
        await client.disconnect(reset=True)
        await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
