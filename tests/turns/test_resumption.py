"""The deadlines of a run that is read on after its stream broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import Event, TextDelta, TurnFailed, TurnFinished
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.turns.resumption import Resumption
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.servers import SSE_HEAD, chunk, read_request, serving
from tests.dify_streams import PING, message, stream, workflow_finished, workflow_started

PATIENCE = 10.0
"""Seconds, far below all limits but ``attach``."""

BEGIN = stream(workflow_started(), message("one two ", "llm"))
DONE = stream(workflow_finished(outputs={"answer": "one two three"}))

Attach = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Broken:
    """A stream that breaks off after ``BEGIN``, and how often its run was read on."""

    stream: DifyStream
    attached: int = 0

    async def events(self) -> list[Event]:
        found: list[Event] = []
        async with asyncio.timeout(PATIENCE):
            while not self.stream.ended:
                found += await self.stream.next()
        return found


@asynccontextmanager
async def broken(attach: Attach, seconds: float) -> AsyncIterator[Broken]:
    """Yield a broken stream. ``attach`` writes the events of its run, whose first may take so many seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader, 1)
        assert request is not None
        if request.method == "POST":
            writer.write(SSE_HEAD + chunk(BEGIN))
            writer.close()
            return
        found.attached += 1
        await attach(writer)

    async def resume(cut: DifyStream) -> Exchange:
        cut.close()
        return await dify.events(app, cut.ids.workflow_run_id or "", "u", snapshot=True)

    async with serving(serve) as port:
        http = HttpClient(connect_timeout=60)
        dify = DifyClient(http)
        app = DifyApp(f"http://127.0.0.1:{port}/v1", "app-x")
        exchange = await dify.generate(app, "/chat-messages", b"{}")
        limits = TurnLimits(silence=60, turn=60, dead=60, attach=seconds)
        decoder = DifyEventDecoder("advanced-chat")
        found = Broken(DifyStream(exchange, decoder, app, "u", limits, resumption=Resumption(resume)))
        try:
            yield found
        finally:
            found.stream.close()
            await http.close()


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def pings(writer: asyncio.StreamWriter) -> None:
    writer.write(SSE_HEAD)
    while not writer.is_closing():
        writer.write(chunk(PING))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("attach", [silence, pings])
async def test_a_run_that_does_not_begin_again_is_an_error(attach: Attach) -> None:
    async with broken(attach, 0.2) as run:
        text, failed = await run.events()
    assert text == TextDelta("one two ")
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, StreamCut)
    assert run.attached == 2


async def test_a_run_that_has_begun_again_may_take_longer() -> None:
    """Pings then show that it goes on, as in the first stream."""

    async def attach(writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(stream(workflow_started())))
        for _ in range(15):
            await asyncio.sleep(0.1)
            writer.write(chunk(PING))
        writer.write(chunk(DONE))
        await asyncio.Event().wait()

    async with broken(attach, 1.0) as run:
        *texts, last = await run.events()
    assert texts == [TextDelta("one two "), TextDelta("three")]
    assert isinstance(last, TurnFinished)
    assert run.attached == 1
