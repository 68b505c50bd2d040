"""The memory for request bodies: reserved before they are read, shared fairly, and returned in every case."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json as msgspec_json
from starlette.requests import Request
from starlette.types import Message

from openai_dify_proxy.api.bodies import BodyReader, hold_memory
from openai_dify_proxy.api.body_budget import (
    MAX_WAITING,
    MEMORY_PER_BYTE,
    SMALL_BODY,
    TINY_BODY,
    BodyBudget,
    Pool,
    Reservation,
)
from openai_dify_proxy.errors import BodyTooLarge, ServerBusy
from openai_dify_proxy.translate.turn_request import FileContents
from openai_dify_proxy.turns.client import EXTENSION, ClientDisconnected
from tests.api.raw_client import until
from tests.api.servers import ProxyServer
from tests.limits import PATIENCE

Serve = Callable[..., ProxyServer]

MIB = 1024 * 1024
DECODER = msgspec_json.Decoder(str)


def free(budget: BodyBudget) -> tuple[int, int]:
    return budget.small.free, budget.large.free


class Upload:
    """A request with a body that a test sends part by part."""

    def __init__(self, length: int | None) -> None:
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.responder = SimpleNamespace(add_headers=[])
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": b"",
            "headers": headers,
            "extensions": {EXTENSION: {"responder": self.responder}},
        }
        self.request = Request(scope, self._messages.get)
        self.waiting = self._messages

    def send(self, part: bytes, *, more: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def disconnect(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


async def read(reader: BodyReader, upload: Upload) -> str:
    return await reader.read_json(upload.request, DECODER)


def quoted(length: int) -> bytes:
    return b'"' + b"x" * (length - 2) + b'"'


@pytest.mark.parametrize("length", [2, TINY_BODY, TINY_BODY + 1, SMALL_BODY, SMALL_BODY + 1, 4 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_memory_is_returned_after_the_request(length: int, chunked: bool) -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    reader = BodyReader(10 * MIB, budget)
    upload = Upload(None if chunked else length)
    task = asyncio.create_task(read(reader, upload))
    body = quoted(length)
    upload.send(body[: length // 2])
    await until(lambda: not upload.waiting.qsize())
    reserved = 30 * MIB - sum(free(budget))
    assert reserved == length * MEMORY_PER_BYTE or (chunked and length < reserved <= 20 * MIB)
    upload.send(body[length // 2 :], more=False)
    assert len(await task) == length - 2
    await until(lambda: free(budget) == (10 * MIB, 20 * MIB))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("length", [1000, 100_000, 4 * MIB])
async def test_memory_is_returned_after_a_failure(length: int, chunked: bool) -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    reader = BodyReader(10 * MIB, budget)
    left = Upload(None if chunked else length)
    task = asyncio.create_task(read(reader, left))
    left.send(quoted(length)[:-1])
    left.disconnect()
    with pytest.raises(ClientDisconnected):
        await task
    cancelled = Upload(None if chunked else length)
    task = asyncio.create_task(read(reader, cancelled))
    cancelled.send(quoted(length)[:-1])
    await until(lambda: not cancelled.waiting.qsize())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert free(budget) == (10 * MIB, 20 * MIB)


async def test_files_hold_their_memory_until_they_are_dropped() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    upload = Upload(4 * MIB)
    contents = FileContents()
    contents.add("a", b"x" * 3 * MIB)
    started, dropped = asyncio.Event(), asyncio.Event()

    async def respond() -> None:
        await read(BodyReader(10 * MIB, budget), upload)
        hold_memory(upload.request, contents)
        for release in upload.responder.add_headers:
            release()
        started.set()
        await dropped.wait()

    task = asyncio.create_task(respond())
    upload.send(quoted(4 * MIB), more=False)
    await started.wait()
    assert free(budget) == (10 * MIB, 17 * MIB)
    contents.drop()
    assert free(budget) == (10 * MIB, 20 * MIB)
    dropped.set()
    await task


async def test_files_of_a_request_that_ends_hold_no_memory() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    upload = Upload(4 * MIB)
    contents = FileContents()
    contents.add("a", b"x" * 3 * MIB)

    async def respond() -> None:
        await read(BodyReader(10 * MIB, budget), upload)
        hold_memory(upload.request, contents)

    upload.send(quoted(4 * MIB), more=False)
    await asyncio.create_task(respond())
    await until(lambda: free(budget) == (10 * MIB, 20 * MIB))


async def test_chunked_body_is_limited() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    upload = Upload(None)
    for _ in range(11):
        upload.send(b"x" * MIB)
    with pytest.raises(BodyTooLarge):
        await asyncio.create_task(read(BodyReader(10 * MIB, budget), upload))
    assert free(budget) == (10 * MIB, 20 * MIB)


async def test_large_bodies_wait_and_small_ones_pass() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    reader = BodyReader(10 * MIB, budget)
    first, second, small, tiny = Upload(9 * MIB), Upload(2 * MIB), Upload(SMALL_BODY), Upload(TINY_BODY)
    held = asyncio.create_task(read(reader, first))
    waiting = asyncio.create_task(read(reader, second))
    second.send(quoted(2 * MIB), more=False)
    for upload, length in ((small, SMALL_BODY), (tiny, TINY_BODY)):
        upload.send(quoted(length), more=False)
        assert len(await read(reader, upload)) == length - 2
    assert second.waiting.qsize() == 1  # not read yet
    first.send(quoted(9 * MIB), more=False)
    await held
    assert len(await waiting) == 2 * MIB - 2


async def test_body_without_room_is_rejected_after_a_while() -> None:
    budget = BodyBudget(30 * MIB, 0.01)
    reader = BodyReader(10 * MIB, budget)
    held = asyncio.create_task(read(reader, Upload(10 * MIB)))
    await until(lambda: budget.large.free == 0)
    with pytest.raises(ServerBusy) as rejected:
        await read(reader, Upload(2 * MIB))
    assert rejected.value.retry_after
    held.cancel()
    await asyncio.wait((held,))
    assert free(budget) == (10 * MIB, 20 * MIB)


def test_the_settings_of_the_memory_for_bodies(serve: Serve) -> None:
    """Two thirds of 6 MiB hold one body of 1.5 MiB, which reserves twice its length."""
    proxy = serve(max_body_bytes=2 * MIB, body_memory=6 * MIB, body_memory_timeout=0.05)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (3 * MIB // 2)
    with (
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as first,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as second,
    ):
        first.sendall(head)
        assert b" 100 " in first.recv(1024)  # it has its memory
        second.sendall(head)
        assert b" 503 " in second.recv(1024)


async def test_the_number_of_waiting_bodies_is_limited() -> None:
    pool = Pool(10, PATIENCE)
    pool.take(10)
    waiting = [asyncio.create_task(pool.acquire(1)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ServerBusy):
        await pool.acquire(1)
    pool.release(MAX_WAITING)
    await asyncio.gather(*waiting)
    assert pool.free == 0


async def test_a_large_amount_is_not_overtaken() -> None:
    pool = Pool(10, PATIENCE)
    pool.take(8)
    order: list[int] = []

    async def acquire(amount: int) -> None:
        await pool.acquire(amount)
        order.append(amount)

    tasks = [asyncio.create_task(acquire(amount)) for amount in (9, 1, 2)]
    await asyncio.sleep(0)
    assert not order
    pool.release(8)
    await until(lambda: order == [9, 1])
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert pool.free == 0


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4), st.booleans()), max_size=20))
def test_no_memory_is_lost_or_invented(steps: list[tuple[int, int, bool]]) -> None:
    """Requests wait, are cancelled at any moment, even when just granted, and release their memory."""

    async def run() -> None:
        pool = Pool(12, PATIENCE)

        async def hold(amount: int, turns: int) -> None:
            await pool.acquire(amount)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                pool.release(amount)

        tasks = []
        for amount, turns, cancel in steps:
            tasks.append(asyncio.create_task(hold(amount, turns)))
            await asyncio.sleep(0)
            if cancel:
                tasks[len(tasks) // 2].cancel()
            assert 0 <= pool.free <= 12
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.free == 12
        assert not pool._waiting

    asyncio.run(run())


async def test_memory_of_a_large_body_is_returned_when_the_response_starts() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    upload = Upload(2 * MIB)
    upload.send(quoted(2 * MIB), more=False)
    await read(BodyReader(10 * MIB, budget), upload)  # in the task of the test, which has not ended
    assert free(budget) == (10 * MIB, 16 * MIB)
    assert upload.responder.add_headers[0]() == ()
    assert free(budget) == (10 * MIB, 20 * MIB)


async def test_reservation_of_a_growing_body() -> None:
    budget = BodyBudget(30 * MIB, PATIENCE)
    reservation = Reservation(budget)
    for length in (1000, 100_000, SMALL_BODY, 2 * MIB, 5 * MIB):
        await reservation.cover(length)
        assert 30 * MIB - sum(free(budget)) == length * MEMORY_PER_BYTE
    reservation.release()
    reservation.release()
    assert free(budget) == (10 * MIB, 20 * MIB)
