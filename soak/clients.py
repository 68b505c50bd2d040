"""The clients: thousands of them in one process, which check every answer.

``python -m soak.clients`` reads a ``Plan`` as JSON from the first line of stdin, works until stdin ends, lets the
running requests end, and writes ``Outcomes`` as JSON to stdout.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from threading import Thread
from typing import Any

import msgspec
import uvloop

from bench import client
from bench.client import Answer, ConnectionLost
from bench.limits import allow_many_connections
from openai_dify_proxy.turns.dify_stream import DEAD_SECONDS
from soak.answers import (
    Failed,
    Wrong,
    chat_stream,
    envelope,
    failed_response,
    response_stream,
    text_of_chat,
    text_of_response,
)
from soak.cluster import SILENCE_TIMEOUT
from soak.questions import FAILING, MARKER, Fault, Question, client_of, picture
from soak.upstreams import SDXL

PATIENCE = 2 * SILENCE_TIMEOUT + DEAD_SECONDS + 15
"""Seconds after the answer should have been complete in which a client waits. Later it is lost.

The proxy promises an error earlier: after SILENCE_TIMEOUT in its queue, as long again until Dify's first event, and
then DEAD_SECONDS."""

PAUSE = 1.2
"""Seconds between two turns of a conversation; the proxy delays a turn that follows within a second."""

RETRIES = 20
"""How often a client repeats a request that only reads, a second apart."""

SHARES = {
    "chat": 55,
    "responses": 20,
    "whole": 5,
    "conversation": 8,
    "background": 5,
    "tools": 3,
    "images": 2,
    "files": 2,
}
"""The kinds of clients, in percent."""

TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


class Plan(msgspec.Struct):
    """``rates`` has the share of questions with each fault, ``keys`` the client keys; the second one is revoked."""

    host: str
    port: int
    keys: list[str]
    clients: int
    events: int
    gap: int
    rates: dict[Fault, float]
    seed: int


class Failure(msgspec.Struct, frozen=True):
    """An answer that names its failure. ``asked_for``: the question's fault."""

    at: float
    """Seconds since the epoch."""
    seconds: float
    """The time since the question."""
    kind: str
    code: str
    asked_for: bool


class Outcomes(msgspec.Struct):
    """``verified`` counts correct answers by kind; lost, crossed and wrong describe answers that must not be."""

    verified: dict[str, int]
    failures: list[Failure]
    lost: list[str]
    crossed: list[str]
    wrong: list[str]
    first_text: list[tuple[float, float]]
    """For each stream the time since the epoch, and the seconds to its first text."""


class Load:
    """What the clients share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ended = asyncio.Event()
        self.verified: Counter[str] = Counter()
        self.outcomes = Outcomes({}, [], [], [], [], [])

    async def request(
        self, method: str, path: str, body: bytes, *, key: str, seconds: float, kind: str = "application/json"
    ) -> Answer:
        """Send a request on a connection of its own. Raises Failed if it is lost, TimeoutError if nothing comes."""
        plan = self.plan
        try:
            connection = await client.connect(plan.host, plan.port)
        except OSError as error:
            raise Failed("connection_refused") from error
        request = client.request(method, f"{plan.host}:{plan.port}", path, body=body, key=key)
        if kind != "application/json":
            request = request.replace(b"Content-Type: application/json", b"Content-Type: " + kind.encode(), 1)
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                return await connection.ask(request)
        except ConnectionLost as error:
            raise Failed("connection_lost") from error
        finally:
            connection.close()

    async def ask(self, path: str, body: Any, *, key: str, seconds: float = 0, timed: bool = False) -> Answer:
        answer = await self.request("POST", path, msgspec.json.encode(body), key=key, seconds=seconds)
        if timed and answer.status == 200 and answer.first_text_at is not None:
            self.outcomes.first_text.append((time.time(), answer.first_text_at - answer.asked_at))
        return answer

    async def read(self, path: str, *, key: str) -> Answer:
        """Read something that the proxy has promised to have. Raises Wrong if it does not."""
        last = Failed("never_asked")
        for _ in range(RETRIES):
            try:
                answer = await self.request("GET", path, b"", key=key, seconds=0)
                if answer.status == 200:
                    return answer
                last = envelope(answer)
            except Failed as failed:
                last = failed
            if last.code in ("response_not_found", "not_found", "file_not_found"):
                raise Lost(f"{path}: {last.code}")
            if last.code == "invalid_api_key":
                raise last
            await asyncio.sleep(1)
        raise last


class Lost(Exception):
    """The proxy does not have something that it promised to have."""


class SoakClient:
    """A client of one kind, which asks one question after the other."""

    def __init__(self, load: Load, number: int, kind: str) -> None:
        self._load = load
        self._number = number
        self._kind = kind
        self._asked = 0
        self._random = random.Random(load.plan.seed * 1_000_003 + number)
        keys = load.plan.keys
        self._key = keys[1] if len(keys) > 1 and number % 20 == 0 else keys[0]
        self._history: list[dict[str, str]] = []

    async def run(self) -> None:
        """Ask until the load ends. Clients begin within one gap after each other, so that their events spread."""
        plan = self._load.plan
        await asyncio.sleep(self._random.random() * max(plan.gap / 1000, 1.0) * min(plan.clients / 100, 10))
        turn: Callable[[Question], Awaitable[None]] = getattr(self, f"_{self._kind}")
        while not self._load.ended.is_set():
            question = self._question()
            await self._record(question, turn(question))
            await self._pause()

    def _question(self) -> Question:
        plan, choice = self._load.plan, self._random.random()
        fault: Fault = "none"
        for name, rate in plan.rates.items():
            if choice < rate:
                fault = name
                break
            choice -= rate
        self._asked += 1
        events = self._random.randint(max(2, plan.events // 2), plan.events)
        short = self._kind in ("whole", "conversation", "background", "tools", "images", "files")
        return Question(f"c{self._number}-{self._asked}", min(events, 4) if short else events, plan.gap, fault)

    async def _pause(self) -> None:
        seconds = PAUSE if self._kind in ("chat", "responses", "conversation") else 2 + 4 * self._random.random()
        try:
            async with asyncio.timeout(seconds):
                await self._load.ended.wait()
        except TimeoutError:
            pass

    async def _record(self, question: Question, turn: Awaitable[None]) -> None:
        outcomes = self._load.outcomes
        what = f"{self._kind} {question.text}"
        began = time.time()
        try:
            await turn
        except Failed as failed:
            expected = question.fault in FAILING
            now = time.time()
            outcomes.failures.append(Failure(now, now - began, self._kind, failed.code, expected))
            if failed.code == "invalid_api_key":  # revoked: go on with the other key
                self._key = self._load.plan.keys[0]
            self._history = []
        except TimeoutError:
            outcomes.lost.append(f"{what}: no answer for {question.seconds + PATIENCE:.0f} s")
        except Lost as lost:
            outcomes.lost.append(f"{what}: {lost}")
        except Wrong as wrong:
            foreign = {client_of(marker) for marker in MARKER.findall(wrong.text)} - {client_of(question.marker)}
            (outcomes.crossed if foreign else outcomes.wrong).append(f"{what}: {wrong}")
        except Exception as error:  # noqa: BLE001 - an answer that no client could read
            outcomes.wrong.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self._load.verified[self._kind] += 1

    def _check(self, question: Question, text: str) -> None:
        if text != question.answer:
            raise Wrong("the text is another", text)

    async def _chat(self, question: Question) -> None:
        body = {"model": "soak", "stream": True, "messages": [{"role": "user", "content": question.text}]}
        answer = await self._load.ask("/v1/chat/completions", body, key=self._key, seconds=question.seconds, timed=True)
        self._check(question, chat_stream(answer))

    async def _whole(self, question: Question) -> None:
        body = {"model": "soak", "messages": [{"role": "user", "content": question.text}]}
        answer = await self._load.ask("/v1/chat/completions", body, key=self._key, seconds=question.seconds)
        self._check(question, text_of_chat(answer))

    async def _conversation(self, question: Question) -> None:
        if len(self._history) >= 8:
            self._history = []
        messages = [*self._history, {"role": "user", "content": question.text}]
        body = {"model": "soak", "stream": True, "messages": messages, "user": f"c{self._number}"}
        answer = await self._load.ask("/v1/chat/completions", body, key=self._key, seconds=question.seconds, timed=True)
        text = chat_stream(answer)
        self._check(question, text)
        self._history = [*messages, {"role": "assistant", "content": text}]

    async def _responses(self, question: Question) -> None:
        body = {"model": "soak", "stream": True, "input": question.text, "store": False}
        answer = await self._load.ask("/v1/responses", body, key=self._key, seconds=question.seconds, timed=True)
        self._check(question, response_stream(answer))

    async def _background(self, question: Question) -> None:
        body = {"model": "soak", "background": True, "input": question.text}
        answer = await self._load.ask("/v1/responses", body, key=self._key)
        if answer.status != 200:
            raise envelope(answer)
        name = msgspec.json.decode(answer.body)["id"]
        key = self._key
        deadline = time.monotonic() + question.seconds + PATIENCE
        while time.monotonic() < deadline:
            await asyncio.sleep(1)
            answer = await self._load.read(f"/v1/responses/{name}", key=key)
            response = msgspec.json.decode(answer.body)
            if response["status"] == "completed":
                self._check(question, text_of_response(response))
                return
            if response["status"] in ("failed", "incomplete", "cancelled"):
                raise failed_response(response)
        raise Lost(f"background response {name} never ended")

    async def _tools(self, question: Question) -> None:
        content = f"{question.text} TOOL lookup"
        body = {"model": "soak", "messages": [{"role": "user", "content": content}], "tools": [TOOL]}
        answer = await self._load.ask("/v1/chat/completions", body, key=self._key, seconds=question.seconds)
        if answer.status != 200:
            raise envelope(answer)
        message = msgspec.json.decode(answer.body)["choices"][0]["message"]
        calls = [call["function"] for call in message.get("tool_calls") or []]
        if [(call["name"], msgspec.json.decode(call["arguments"])) for call in calls] != [
            ("lookup", {"marker": question.marker})
        ]:
            raise Wrong("the call is another", str(message))

    async def _images(self, question: Question) -> None:
        body = {"model": f"{SDXL.name}:{SDXL.version}", "prompt": question.text, "response_format": "url"}
        answer = await self._load.ask("/v1/images/generations", body, key=self._key)
        if answer.status != 200:
            raise envelope(answer)
        url = msgspec.json.decode(answer.body)["data"][0]["url"]
        stored = await self._load.read(f"/pictures/{url.rpartition('/')[2]}", key=self._key)
        if stored.body != picture(question.marker):
            raise Wrong("the picture is another", "")

    async def _files(self, question: Question) -> None:
        content, key = question.answer.encode(), self._key
        lines = [
            b"--soak",
            b'Content-Disposition: form-data; name="file"; filename="soak.txt"',
            b"",
            content,
            b"--soak--",
            b"",
        ]
        answer = await self._load.request(
            "POST",
            "/v1/files",
            b"\r\n".join(lines),
            key=key,
            seconds=0,
            kind="multipart/form-data; boundary=soak",
        )
        if answer.status != 200:
            raise envelope(answer)
        name = msgspec.json.decode(answer.body)["id"]
        await asyncio.sleep(2)
        stored = await self._load.read(f"/v1/files/{name}/content", key=key)
        if stored.body != content:
            raise Wrong("the file is another", stored.body.decode(errors="replace"))
        # A caller has 500 stored files at most.
        deleted = await self._load.request("DELETE", f"/v1/files/{name}", b"", key=key, seconds=0)
        if deleted.status != 200:
            raise envelope(deleted)


def kinds(count: int) -> list[str]:
    """Return the kind of each client: of every kind one at least, the others by their shares."""
    wheel = [kind for kind, share in SHARES.items() for _ in range(share)]
    # 37 and 100 have no common divisor, so that any hundred clients in a row have the shares.
    return [*SHARES, *(wheel[number * 37 % 100] for number in range(count))][:count]


async def main(plan: Plan) -> Outcomes:
    load = Load(plan)
    loop = asyncio.get_running_loop()
    Thread(target=_await_end, args=(loop, load.ended), daemon=True).start()
    clients = [SoakClient(load, number, kind) for number, kind in enumerate(kinds(plan.clients))]
    async with asyncio.TaskGroup() as group:
        for each in clients:
            group.create_task(each.run())
    load.outcomes.verified = dict(load.verified)
    return load.outcomes


def _await_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Wait for the end of stdin, which ends the load."""
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(ended.set)


if __name__ == "__main__":
    allow_many_connections()
    gc.freeze()
    outcomes = uvloop.run(main(msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)))
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))
