"""The deadlines of a stream: after its first event, and while its reading is paused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import Event, TextDelta, TurnFailed
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.servers import SSE_HEAD, RawRequest, chunk, message_frame, raw_dify

DEAD = 0.5
PATIENCE = 10.0
"""Seconds, far below the limit of the first event."""


@asynccontextmanager
async def stream_of(answer: Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[DifyStream]:
    """Yield a stream of the answer that waits for its first event for a minute, and for DEAD seconds after it."""
    async with raw_dify(answer) as dify:
        http = HttpClient(connect_timeout=60)
        app = DifyApp(dify.url, "app-x")
        exchange = await DifyClient(http).generate(app, "/chat-messages", b"{}")
        limits = TurnLimits(silence=60, turn=60, dead=DEAD)
        stream = DifyStream(exchange, DifyEventDecoder("chat"), app, "u", limits)
        try:
            yield stream
        finally:
            stream.close()
            await http.close()


def assert_dead(events: list[Event]) -> None:
    (failed,) = events
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, StreamCut)


async def test_a_listener_hears_of_a_dead_stream() -> None:
    """The timer of the first event, which is set before Dify answers, becomes that of the next one."""
    read_once, ended = asyncio.Event(), asyncio.Event()
    events: list[Event] = []

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await read_once.wait()
        writer.write(SSE_HEAD + chunk(message_frame("before")))
        await asyncio.Event().wait()

    async with stream_of(answer) as stream:

        def listener() -> None:
            events.extend(stream.poll())
            if stream.ended:
                ended.set()

        stream.listen(listener)
        assert stream.poll() == []
        read_once.set()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
    assert events[0] == TextDelta("before")
    assert_dead(events[1:])


async def test_short_pauses_do_not_prolong_a_dead_stream() -> None:
    """A heartbeat that the client does not read at once pauses the stream for a moment."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("before")))
        await asyncio.Event().wait()

    async with stream_of(answer) as stream, asyncio.timeout(PATIENCE):
        assert await stream.next() == [TextDelta("before")]
        while not (events := stream.poll()):
            stream.pause()
            stream.resume()
            await asyncio.sleep(DEAD / 20)
    assert_dead(events)


async def test_the_silence_of_a_pause_is_not_difys() -> None:
    """A client that did not read for longer than the limit gets the rest of its stream."""
    resumed = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("before")))
        await resumed.wait()
        writer.write(chunk(message_frame("after")))
        await writer.drain()
        await asyncio.Event().wait()

    async with stream_of(answer) as stream:
        assert await stream.next() == [TextDelta("before")]
        stream.pause()
        await asyncio.sleep(2 * DEAD)
        stream.resume()
        assert stream.poll() == []
        resumed.set()
        assert await stream.next() == [TextDelta("after")]


async def test_a_listener_hears_of_a_client_that_left_before() -> None:
    """The client may leave while the connection to Dify is being made."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    calls: list[str] = []
    async with stream_of(answer) as stream:
        stream.disconnect()
        stream.listen(lambda: calls.append("called"))
        stream.await_events()
    assert calls == ["called"]
