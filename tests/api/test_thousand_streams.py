"""A thousand concurrent streams through one worker."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator

import pytest

from tests.api.raw_client import Client
from tests.api.servers import END, LAST_CHUNK, SSE_HEAD, RawRequest, chunk, message_frame, raw_dify
from tests.cli.program import Program

STREAMS = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of open files of this process and its children to that of the sockets of both sides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * STREAMS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"the hard limit of open files is {hard}, but the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_thousand_concurrent_streams_are_answered(program: Program, many_files: None) -> None:
    """No stream ends before all are open, so all run at the same time."""
    open_turns = 0
    all_open = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal open_turns
        writer.write(SSE_HEAD + chunk(message_frame("begin ")))
        open_turns += 1
        if open_turns == STREAMS:
            all_open.set()
        await all_open.wait()
        for number in range(3):
            writer.write(chunk(message_frame(f"{request.body['query']}-{number} ")))
            await writer.drain()
        writer.write(chunk(END) + LAST_CHUNK)

    async with raw_dify(answer) as dify:
        with program.start(
            "serve", "--port", "0", DIFY_API_URL=dify.url, DIFY_API_KEY="app-raw", DIFY_MAX_CONCURRENT="off"
        ) as server:
            port = int((await asyncio.to_thread(server.url)).removesuffix("/v1").rpartition(":")[2])
            clients = [Client(port) for _ in range(STREAMS)]

            async def stream(number: int) -> None:
                client = clients[number]
                await client.ask(f"question{number}", "any", stream=True)
                await client.read_until(b"data: [DONE]\n\n")
                assert client.seen.startswith(b"HTTP/1.1 200 ")
                received = (
                    client.seen.count(b"begin "),
                    [client.seen.count(b"question%d-%d " % (number, part)) for part in range(3)],
                )
                assert received == (1, [1, 1, 1])
                assert client.seen.count(b"question") == 3, "a piece of another answer"
                await client.disconnect()

            async with asyncio.timeout(60):
                await asyncio.gather(*(stream(number) for number in range(STREAMS)))
            assert open_turns == STREAMS
            assert not dify.stops
            assert await asyncio.to_thread(server.end, signal.SIGTERM) == 0
            assert "Traceback" not in server.logged
