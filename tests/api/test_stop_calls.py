"""How abandoned turns are stopped, against a Dify that behaves worse than the demo."""

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
    """Old versions of Dify store an empty answer if the stream is closed before its end."""
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


async def test_the_stream_is_closed_if_dify_ignores_the_stop_call(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    closed = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await dify.stopped.wait()
        try:
            while True:
                writer.write(chunk(message_frame("on and on")))
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            closed.set()

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat")
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        await asyncio.wait_for(closed.wait(), PATIENCE)


async def test_the_task_id_may_come_in_any_event_and_be_split_anywhere(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    """The client disconnects between the two halves of the first event."""
    halves = frame("agent_thought", thought="hm")
    disconnected = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(b"event: ping\n\n", halves[:40]))
        await disconnected.wait()
        writer.write(chunk(halves[40:]))
        await dify.stopped.wait()

    async with raw_dify(answer, "agent-chat", at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-agent-chat")
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        disconnected.set()
        await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
        assert TASK in dify.stops[0].path


async def test_an_abandoned_turn_that_fails_is_not_stopped(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    disconnected = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await disconnected.wait()
        writer.write(SSE_HEAD + chunk(frame("error", code="invalid_param", status=400, message="no")) + b"0\r\n\r\n")

    async with raw_dify(answer, at=raw_socket) as dify:
        client = Client(raw_proxy.port)
        await client.ask("hi", "raw-chat", stream=True)
        await until(lambda: bool(dify.turns))
        await client.disconnect()
        disconnected.set()
        async with httpx2.AsyncClient(verify=False) as http:
            reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=True))
        assert reply.status_code == 502
        assert not dify.stops


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_before_the_turn_is_sent_leaves_no_run(serve: Serve, stream: bool) -> None:
    """The client disconnects during the request for the app's mode: either no turn starts, or it is stopped."""

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


async def test_a_client_that_does_not_read_blocks_dify_until_it_disconnects(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    """The proxy applies backpressure and does not buffer the answer."""
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
