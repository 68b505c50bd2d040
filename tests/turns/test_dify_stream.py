"""The deadlines of a stream while its reading is paused."""

from __future__ import annotations

import asyncio

from openai_dify_proxy.events import TextDelta
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from tests.api.servers import SSE_HEAD, RawRequest, chunk, message_frame, raw_dify

DEAD = 0.2


async def test_the_silence_of_a_pause_is_not_difys() -> None:
    """A client that did not read for longer than the limit gets the rest of its stream."""
    resumed = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("before")))
        await resumed.wait()
        writer.write(chunk(message_frame("after")))
        await writer.drain()
        await asyncio.Event().wait()

    async with raw_dify(answer) as dify:
        http = HttpClient(connect_timeout=60)
        app = DifyApp(dify.url, "app-x")
        exchange = await DifyClient(http).generate(app, "/chat-messages", b"{}")
        limits = TurnLimits(silence=60, turn=60, dead=DEAD)
        stream = DifyStream(exchange, DifyEventDecoder("chat"), app=app, user="u", stop=None, limits=limits)
        assert await stream.next() == [TextDelta("before")]
        stream.pause()
        await asyncio.sleep(2 * DEAD)
        stream.resume()
        assert stream.poll() == []
        resumed.set()
        assert await stream.next() == [TextDelta("after")]
        stream.close()
        await http.close()
