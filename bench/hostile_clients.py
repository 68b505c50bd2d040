"""Requests of hostile clients: bodies that are expensive to read, and connections that never end.

Each attack is a coroutine that takes a `Victim` and ends when it is done, or is cancelled after its time. It counts the
answers in `Victim.seen`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bench import client
from bench.client import ConnectionLost
from bench.hostile_dify import SLOW_KEY, question
from bench.scenarios import Scenario

MIB = 1 << 20
CALLER = "sk-bench"
STRANGER = "app-stranger"
"""A Dify key that no Dify knows."""

ITEMS = 9_900
"""Items in a body: just below the proxy's limit."""
FILL = "FILL"
ROLE_LINE = "User: x\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Victim:
    """The proxy under attack, and the answers of all requests so far: a status, or how the connection ended."""

    host: str
    port: int
    seen: Counter[str] = field(default_factory=Counter)

    async def ask(self, request: bytes) -> bytes:
        """Send a request on a new connection; return the body of the answer, empty if there is none."""
        self.seen["unanswered"] += 1
        try:
            connection = await client.connect(self.host, self.port)
            answer = await connection.ask(request)
        except (OSError, ConnectionLost):
            self.seen["cut"] += 1
            return b""
        finally:
            self.seen["unanswered"] -= 1
        connection.close()
        self.seen[str(answer.status)] += 1
        return answer.body

    async def post(self, path: str, body: bytes | Json, key: str = CALLER) -> bytes:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask(client.request("POST", self.host, path, body=data, key=key))

    async def send(self, parts: Iterable[bytes], *, buffer: int | None = None) -> asyncio.StreamWriter:
        """Send bytes on a new connection, and read nothing. `buffer` is the size of the receive buffer."""
        loop = asyncio.get_running_loop()
        plain = socket.socket()
        if buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.setblocking(False)
        await loop.sock_connect(plain, (self.host, self.port))
        # Beyond its limit the reader stops reading from the socket.
        _, writer = await asyncio.open_connection(sock=plain, limit=1)
        self.seen["connections"] += 1
        for part in parts:
            writer.write(part)
            await writer.drain()
        return writer

    async def send_and_hold(self, parts: Iterable[bytes], *, buffer: int | None = None) -> None:
        """Send bytes on a new connection, read nothing, and hold the connection."""
        try:
            writer = await self.send(parts, buffer=buffer)
            await writer.wait_closed()
        except OSError:
            self.seen["cut"] += 1


Attack = Callable[[Victim], Awaitable[object]]


def chat(messages: list[Json], *, stream: bool = False) -> Json:
    return {"model": "dify", "messages": messages, "stream": stream}


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


def tool_result(text: str) -> Json:
    """Return the result of ``TOOL_CALL``."""
    return {"role": "tool", "tool_call_id": "c", "content": text}


TOOL_CALL: Json = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
QUESTION = user(Scenario(events=1, size=8).question)


def repeated(
    path: str, item: str, size: int, *, before: str, after: str, items: int = ITEMS, key: str = CALLER
) -> Attack:
    """Send a body of about `size` bytes with `items` items, one body after the other.

    Role lines, which are expensive to escape, take the place of each `FILL` in the item's JSON.
    """

    async def attack(victim: Victim) -> None:
        line = json.dumps(ROLE_LINE)[1:-1]
        filler = line * ((size // items - len(item)) // len(line) // max(1, item.count(FILL)))
        body = before + ",".join([item.replace(FILL, filler)] * items) + after
        for _ in range(5 if size <= MIB else 2):
            await victim.post(path, body.encode(), key)

    return attack


def messages(*items: Json, size: int, number: int = ITEMS) -> Attack:
    item = ",".join(json.dumps(each) for each in items)
    after = f",{json.dumps(QUESTION)}]}}"
    before = '{"model":"dify","messages":['
    return repeated("/v1/chat/completions", item, size, before=before, after=after, items=number // len(items))


def input_items(item: Json, size: int) -> Attack:
    after = f",{json.dumps(QUESTION)}]}}"
    return repeated("/v1/responses", json.dumps(item), size, before='{"model":"dify","input":[', after=after)


def conversation_items(item: Json, size: int) -> Attack:
    return repeated("/v1/conversations", json.dumps(item), size, before='{"items":[', after="]}")


def content_parts(size: int) -> Attack:
    before = '{"model":"dify","messages":[{"role":"user","content":['
    after = f",{json.dumps({'type': 'text', 'text': QUESTION['content']})}]}}]}}"
    part = json.dumps({"type": "text", "text": FILL})
    return repeated("/v1/chat/completions", part, size, before=before, after=after)


def long_message(text: str, size: int, *, path: str = "/v1/chat/completions", key: str = CALLER) -> Attack:
    """Send a history with one message that repeats a text."""

    async def attack(victim: Victim) -> None:
        history = [user("Hello"), assistant(text * (size // len(json.dumps(text)[1:-1]))), QUESTION]
        body = chat(history) if path.endswith("completions") else {"model": "dify", "input": history}
        for _ in range(5 if size <= MIB else 2):
            await victim.post(path, body, key)

    return attack


def dify_attack(name: str, *, requests: int = 3) -> Attack:
    """Ask questions that make the hostile Dify attack."""

    async def attack(victim: Victim) -> None:
        for _ in range(requests):
            await victim.post("/v1/chat/completions", chat([user(question(name))], stream=True))

    return attack


async def pipeline(victim: Victim) -> None:
    """Send requests without reading the answers."""
    requests = client.request("GET", victim.host, "/health") * 2000
    await victim.send_and_hold((requests for _ in count()), buffer=4096)


def conversations(bodies: int, size: int, key: str) -> Attack:
    async def attack(victim: Victim) -> None:
        body = json.dumps({"items": [user("x" * size)]}).encode()
        await asyncio.gather(*(victim.post("/v1/conversations", body, key) for _ in range(bodies)))

    return attack


async def conversation_flood(victim: Victim) -> None:
    """Create many small conversations with a key that no Dify knows."""

    async def create() -> None:
        while True:
            await victim.post("/v1/conversations", {"items": [user("x" * 1000)]}, STRANGER)

    await asyncio.gather(*(create() for _ in range(8)))


async def pictures(victim: Victim) -> None:
    """Send 20 different pictures of 20 MB at once, each in its own request."""

    async def send(number: int) -> None:
        picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + number.to_bytes(4) + bytes(20 * MIB)
        url = f"data:image/png;base64,{b64encode(picture).decode()}"
        parts = [{"type": "text", "text": QUESTION["content"]}, {"type": "image_url", "image_url": {"url": url}}]
        await victim.post("/v1/chat/completions", chat([{"role": "user", "content": parts}]))

    await asyncio.gather(*map(send, range(20)))


async def references(victim: Victim) -> None:
    """Reference one stored answer of a megabyte 400 times."""
    long_answer = Scenario(events=1000, size=1000).question
    stored = json.loads(await victim.post("/v1/responses", {"model": "dify", "input": long_answer}))
    reference = {"type": "item_reference", "id": stored["output"][0]["id"]}
    for _ in range(3):
        await victim.post("/v1/responses", {"model": "dify", "input": [*[reference] * 400, QUESTION]})


async def half_bodies(victim: Victim) -> None:
    """Announce 20 bodies of 60 MB, and send 59 MB of each."""
    head = client.request("POST", victim.host, "/v1/chat/completions", key=STRANGER)
    head = head.replace(b"Content-Length: 0", b"Content-Length: 60000000")
    body = [b"x" * 1_000_000] * 59
    await asyncio.gather(*(victim.send_and_hold([head, b'{"x":"', *body]) for _ in range(20)))


async def silent_connections(victim: Victim) -> None:
    """Open 3000 connections, and send nothing or half a head."""
    half = client.request("GET", victim.host, "/health")[:40]
    at_once = asyncio.Semaphore(100)

    async def hold(number: int) -> None:
        async with at_once:
            writer = await victim.send([half] if number % 2 else [])
        await writer.wait_closed()

    await asyncio.gather(*map(hold, range(3000)), return_exceptions=True)


def endless_head(start: bytes, more: bytes, size: int) -> Attack:
    async def attack(victim: Victim) -> None:
        parts = [start, *[more] * (size // len(more))]
        await asyncio.gather(*(victim.send_and_hold(parts) for _ in range(4)))

    return attack


async def unread_response(victim: Victim) -> None:
    """Read a stored background stream of 8 MB with 40 clients that read nothing."""
    body = {"model": "dify", "input": Scenario(events=8000, size=1000).question, "background": True, "stream": True}
    answer = await victim.post("/v1/responses", body)
    name = answer.partition(b'"id":"')[2].partition(b'"')[0].decode()
    follow = client.request("GET", victim.host, f"/v1/responses/{name}?stream=true&starting_after=0", key=CALLER)
    await asyncio.gather(*(victim.send_and_hold([follow], buffer=4096) for _ in range(40)))


async def unread_flood(victim: Victim) -> None:
    """Start 150 streams of an endless answer, and read nothing."""
    body = json.dumps(chat([user(question("flood"))], stream=True)).encode()
    request = client.request("POST", victim.host, "/v1/chat/completions", body=body, key=CALLER)
    await asyncio.gather(*(victim.send_and_hold([request], buffer=4096) for _ in range(150)))


async def junk_keys(victim: Victim) -> None:
    """Ask with ever new keys that Dify rejects after two seconds."""
    numbers = count()

    async def ask() -> None:
        while True:
            await victim.post("/v1/chat/completions", chat([QUESTION]), f"{SLOW_KEY.decode()}-{next(numbers)}")

    await asyncio.gather(*(ask() for _ in range(200)))
