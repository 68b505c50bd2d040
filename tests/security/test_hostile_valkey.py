"""A Valkey that answers with garbage or without end: the state counts as unavailable, and works again afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from openai_dify_proxy.state import StateUnavailable
from openai_dify_proxy.state.servers import open_server
from openai_dify_proxy.state.store import Add, Get, Operation, Put, Take
from openai_dify_proxy.state.valkey import ValkeyStore
from tests.api.servers import serving
from tests.limits import PATIENCE

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OPERATIONS: list[Operation] = [Get("kind:a"), Take("kind:a"), Put("kind:a", b"x", 5.0), Add("kind:a", b"x")]

REPLIES: dict[str, bytes] = {
    "a number": b":5\r\n",
    "an array": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "a nested array": b"*1\r\n" * 50 + b":1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a negative length": b"$-5\r\n",
    "no length": b"$abc\r\n",
    "a boolean": b"#t\r\n",
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "a number too large": b":" + b"9" * 5000 + b"\r\n",
    "an error": b"-ERR x\r\n",
    "an error without a text": b"-\r\n",
    "a long error": b"-ERR " + b"x" * 1_000_000 + b"\r\n",
    "bytes": bytes(range(256)),
}

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a value": (b"$4000000000\r\n", bytes(65536)),
    "a line": (b"+", b"x" * 65536),
    "an array": (b"", b"*1\r\n" * 10_000),
    "pushed messages": (b"", b">1\r\n+x\r\n" * 1000),
}


class HostileValkey:
    """Completes the handshake and sends ``first``, and then ``again`` until the client closes the connection."""

    def __init__(self, first: bytes, again: bytes = b"") -> None:
        self.sent = 0
        self._first = first
        self._again = again

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                introductions = data.count(b"SETINFO")
                writer.write(b"+OK\r\n" * introductions)
                if data.count(b"SETINFO") and not data.count(b"kind:"):
                    continue
                commands = data.count(b"*") - introductions
                writer.write(self._first * commands)
                while self._again:
                    writer.write(self._again)
                    self.sent += len(self._again)
                    await writer.drain()
        except ConnectionError:
            pass


def store_at(port: int, timeout: float) -> ValkeyStore:
    return ValkeyStore(open_server(f"redis://127.0.0.1:{port}"), max_entries=10, timeout=timeout)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_a_reply_that_is_no_value(reply: bytes) -> None:
    async with serving(HostileValkey(reply).serve) as port:
        store = store_at(port, timeout=0.3)
        for operation in OPERATIONS:
            with pytest.raises(StateUnavailable) as caught:
                await store.run(operation)
            assert len(str(caught.value)) <= 200
        await store.close()


@pytest.mark.parametrize(("first", "again"), ENDLESS.values(), ids=ENDLESS)
async def test_a_reply_without_an_end(first: bytes, again: bytes) -> None:
    valkey = HostileValkey(first, again)
    async with serving(valkey.serve) as port:
        store = store_at(port, timeout=0.3)
        with pytest.raises(StateUnavailable):
            await store.run(Get("kind:a"))
        await store.close()
    assert valkey.sent <= 512 * 1024 * 1024


ODD_REPLIES = (b"*1\r\n$1\r\nx\r\n", b":99\r\n", b"$1\r\nx\r\n", b"$-1\r\n", b"-ERR x\r\n", b":-1\r\n")


async def test_the_state_works_again_after_odd_replies() -> None:
    """Also where the odd reply was to the tidying of old entries, which runs behind the callers' backs."""
    for odd in ODD_REPLIES:

        def reply(command: bytes, odd: bytes = odd) -> bytes:
            return b"$-1\r\n" if b"\r\nGET" in command or b"\r\nSET" in command else odd

        async with serving(answering(reply)) as port:
            store = store_at(port, timeout=PATIENCE)
            for number in range(3):
                with suppress(StateUnavailable):
                    await store.run(Put(f"kind:{number}", b"x", 5.0))
            async with asyncio.timeout(PATIENCE):
                assert await store.run(Get("kind:a")) == [None]
                await store.close()


def answering(
    reply: Callable[[bytes], bytes],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a server that answers each command by itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                command = line
                for _ in range(int(line[1:])):
                    size = await reader.readline()
                    command += await reader.readexactly(int(size[1:]) + 2)
                writer.write(b"+OK\r\n" if b"SETINFO" in command else reply(command))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass

    return serve
