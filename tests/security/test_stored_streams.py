"""Readers of stored streams that do not read: each holds one portion, and no longer than the write timeout."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.types import Message

from openai_dify_proxy.api.stored_streams import StoredStream
from openai_dify_proxy.responses.event_log import (
    BLOCK_BYTES,
    PORTION_BYTES,
    WRITE_BYTES,
    EventLogs,
    EventLogWriter,
    RunProgress,
)
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Operation, Put, StateUnavailable
from openai_dify_proxy.turns.callers import ANONYMOUS
from openai_dify_proxy.turns.conversations import Conversations
from tests.api.servers import END, LAST_CHUNK, SSE_HEAD, ProxyServer, chunk, message_frame, raw_dify, scripted
from tests.limits import PATIENCE

READERS = 40
TEXT = "x" * 1_600_000
"""Stored five times: in a delta, and in the four events that end a response."""


async def stored_response(http: httpx2.AsyncClient, proxy: ProxyServer, at: socket.socket) -> str:
    answer = scripted([SSE_HEAD, chunk(message_frame(TEXT)), chunk(END), LAST_CHUNK])
    async with raw_dify(answer, at=at):
        body = {"model": "raw-chat", "input": "hi", "background": True}
        name: str = (await http.post(f"{proxy.url}/responses", json=body)).json()["id"]
        followed = await http.get(f"{proxy.url}/responses/{name}?stream=true")
        assert followed.content.endswith(b"data: [DONE]\n\n")
        assert followed.content.count(TEXT.encode()) == 5
    return name


async def open_reader(port: int, name: str) -> socket.socket:
    """Ask for a stream, and read only the first byte of the answer."""
    loop = asyncio.get_running_loop()
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    await loop.sock_connect(reader, ("127.0.0.1", port))
    request = f"GET /v1/responses/{name}?stream=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    await loop.sock_sendall(reader, request.encode())
    async with asyncio.timeout(PATIENCE):
        assert await loop.sock_recv(reader, 1) == b"H"
    return reader


async def test_readers_that_do_not_read_hold_a_portion_each(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    name = await stored_response(http, raw_proxy, raw_socket)
    readers = [await open_reader(raw_proxy.port, name) for _ in range(READERS)]
    try:
        connections = raw_proxy._server.server_state.connections
        buffered = sum(connection.transport.get_write_buffer_size() for connection in [*connections])
        assert buffered <= READERS * 128 * 1024
    finally:
        for reader in readers:
            reader.close()


async def test_a_reader_that_does_not_read_is_disconnected_in_time() -> None:
    closed = asyncio.Event()
    yielded = 0

    async def portions() -> AsyncIterator[bytes]:
        nonlocal yielded
        try:
            while True:
                yielded += 1
                yield b"data: x\n\n"
        finally:
            closed.set()

    async def send(message: Message) -> None:
        if message.get("body") == b"data: x\n\n":
            await asyncio.Event().wait()

    stream = portions()
    with pytest.raises(TimeoutError):
        await StoredStream(stream, write_timeout=0.01).stream_response(send)
    assert yielded == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed.is_set()


class CountingStore(MemoryStore):
    """Records the bytes of each writing run, and fails in those with these numbers, the first being 0."""

    def __init__(self, *failing: int) -> None:
        super().__init__(max_entries=1000)
        self.written: list[int] = []
        self._failing = failing

    async def run(self, *operations: Operation) -> list[bytes | None]:
        values = [operation.value for operation in operations if isinstance(operation, Put)]
        if values:
            self.written.append(sum(map(len, values)))
            if len(self.written) - 1 in self._failing:
                raise StateUnavailable("as asked")
        return await super().run(*operations)


def logs(store: MemoryStore | None = None) -> EventLogs:
    guarded = GuardedStore(store or MemoryStore(max_entries=1000), pause=0)
    return EventLogs(Conversations(guarded, ttl=60, now=lambda: 0.0))


@pytest.mark.parametrize("failing", [(), (1,), (1, 2, 5), (4,)])
async def test_a_long_end_is_written_in_portions(failing: tuple[int, ...]) -> None:
    store = CountingStore(*failing)
    stored = logs(store)
    writer = EventLogWriter(stored, ANONYMOUS, "resp_1")
    writer.add(b"begin")
    assert await writer.write(RunProgress(alive_until=1.0))
    data = bytes(range(256)) * (WRITE_BYTES // 256) * 3 + b"end"
    for frame in (data[:7000], data[7000:]):
        writer.add(frame)
    alive = []
    while not await writer.write(RunProgress()):
        assert writer.has_unwritten
        alive.append((await stored.progress("resp_1")).alive_until)
    assert not writer.has_unwritten
    assert max(store.written) <= WRITE_BYTES + 2 * BLOCK_BYTES
    assert alive == [1.0] * len(failing)  # not ended before all is written
    assert await stored.progress("resp_1") == RunProgress(size=5 + len(data))
    read = b""
    while portion := (await stored.read("resp_1", len(read)))[1]:
        read += portion
    assert read == b"begin" + data


async def test_a_failed_write_without_frames_leaves_none() -> None:
    writer = EventLogWriter(logs(CountingStore(0)), ANONYMOUS, "resp_1")
    assert not await writer.write(RunProgress(alive_until=1.0))
    assert not writer.has_unwritten


async def test_a_stream_is_read_in_portions() -> None:
    stored = logs()
    writer = EventLogWriter(stored, ANONYMOUS, "resp_1")
    data = bytes(range(256)) * 1500
    for begin in range(0, len(data), 7000):
        writer.add(data[begin : begin + 7000])
        assert await writer.write(RunProgress(alive_until=1.0))
    for begin in (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, PORTION_BYTES + 5, len(data) - 3, len(data)):
        read, at = [], begin
        while True:
            progress, portion = await stored.read("resp_1", at)
            assert progress.size == len(data)
            assert len(portion) <= PORTION_BYTES
            if not portion:
                break
            read.append(portion)
            at += len(portion)
        assert b"".join(read) == data[begin:]
        assert len(read) <= (len(data) - begin) // PORTION_BYTES + 2


async def test_followers_share_the_end_of_a_running_stream() -> None:
    writer = EventLogWriter(logs(), ANONYMOUS, "resp_1")
    assert writer.recent(0) == b""
    for size in (10, 100, 10 * PORTION_BYTES, 30):
        writer.add(b"x" * size)
        assert await writer.write(RunProgress(alive_until=1.0))
        recent = writer.recent(writer.size - min(size, PORTION_BYTES))
        assert recent == b"x" * min(size, PORTION_BYTES)
        assert writer.recent(writer.size) == b""
        assert writer.recent(writer.size - PORTION_BYTES - 1) is None or writer.size <= PORTION_BYTES


async def test_frames_that_the_state_does_not_hold_yet_are_not_shared() -> None:
    writer = EventLogWriter(logs(), ANONYMOUS, "resp_1")
    writer.add(b"data: x\n\n")
    assert writer.recent(0) == b""
