"""Loads that grow in one dimension: the history, the body, or the number of streams that are opened at once.

`python -m bench.growth_load` reads a `GrowthLoad` as JSON from stdin and writes a `Grown` as JSON to stdout, as
`bench.load` does with a `Load`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal, assert_never

import msgspec

from bench.client import Answer, Connection
from bench.dialects import WrongAnswer, chat_body, conversation_of
from bench.load import Control, Load, Runner, Target, run_from_stdin, seconds_to_first_text
from bench.scenarios import Scenario

MESSAGE_BYTES = 2500

SPACING = 1.2
"""Seconds between two turns of a conversation; the proxy delays a turn that follows within a second."""

Kind = Literal["history", "body", "at_once"]


class GrowthLoad(msgspec.Struct, frozen=True):
    """One load of a size.

    history: `requests` requests, one after the other, with `size` earlier messages of `MESSAGE_BYTES` each, which
    begin new conversations; then the next turn of each.
    body: `requests` requests, one after the other, whose only message has `size` bytes.
    at_once: `size` connections ask in the same moment, and the streams stay open until all have their first text.
    """

    kind: Kind
    target: Target
    upstream_url: str
    size: int
    requests: int
    time_limit: float = 120


class Grown(msgspec.Struct, frozen=True):
    """The cost of a load of one size: seconds of CPU time per request, and times to the first text."""

    cpu: float = 0
    continued_cpu: float = 0
    """Per request that continues a conversation (`history` only)."""
    first_text: list[float] = []
    bytes_per_stream: float = 0


class GrowthRunner(Runner):
    """Runs one load on its target."""

    def __init__(self, load: GrowthLoad) -> None:
        at_once = load.kind == "at_once"
        scenario = Scenario(events=10, size=8, hold=True) if at_once else Scenario(events=1, size=40, converse=True)
        super().__init__(
            Load(
                kind="loop",
                target=load.target,
                upstream_url=load.upstream_url,
                scenario=scenario,
                stream=at_once,
                connections=load.size if at_once else 1,
                requests=load.requests,
            )
        )
        self._size = load.size
        self._kind = load.kind

    async def grow(self) -> Grown:
        match self._kind:
            case "history":
                return await self._history()
            case "body":
                return await self._body()
            case "at_once":
                return await self._at_once()
            case _:
                assert_never(self._kind)

    async def _history(self) -> Grown:
        scenario, model = self._load.scenario, self._load.target.model
        (connection,) = await self._connect()
        history = [_text(MESSAGE_BYTES)] * self._size
        asked = [f"{scenario.question} chat={next(self._numbers)}" for _ in range(self._load.requests)]
        began = time.perf_counter()
        cpu, answers = await self._measure(
            connection, [chat_body(history, question, model=model) for question in asked]
        )
        await asyncio.sleep(began + SPACING - time.perf_counter())
        turns = [chat_body([*history, question, scenario.text], scenario.question, model=model) for question in asked]
        continued_cpu, continued = await self._measure(connection, turns)
        for first, second in zip(answers, continued, strict=True):
            if conversation_of(first.body) != conversation_of(second.body):
                raise WrongAnswer("a later turn did not continue its conversation")
        return Grown(cpu=cpu, continued_cpu=continued_cpu)

    async def _body(self) -> Grown:
        (connection,) = await self._connect()
        text, question = _text(self._size), self._load.scenario.question
        bodies = [
            chat_body([], f"{next(self._numbers)} {text}\n{question}", model=self._load.target.model)
            for _ in range(self._load.requests)
        ]
        cpu, _ = await self._measure(connection, bodies)
        return Grown(cpu=cpu)

    async def _measure(self, connection: Connection, bodies: list[bytes]) -> tuple[float, list[Answer]]:
        """Return the CPU time of a request, and the answers."""
        requests = [self._http_request(body) for body in bodies]
        before = self._cpu()
        answers = [await self._ask(connection, request) for request in requests]
        cpu = self._cpu() - before
        self._check(answers)
        return cpu / len(requests), answers

    async def _at_once(self) -> Grown:
        control = await Control.of(self._load.upstream_url)
        connections = await self._connect()
        idle = self._memory()
        for connection in connections:
            connection.ask(self._next_request())
        await asyncio.gather(*(connection.first_text for connection in connections))
        held = self._memory()
        await control.release()
        answers = await asyncio.gather(*(connection.whole for connection in connections))
        self._check(answers)
        return Grown(
            first_text=[seconds_to_first_text(answer) for answer in answers],
            bytes_per_stream=(held - idle) / len(connections),
        )


def _text(size: int) -> str:
    """Return prose of `size` bytes, with paragraphs, quotes and characters far from ASCII."""
    return Scenario(events=1, size=size).text.encode()[:size].decode(errors="ignore")


if __name__ == "__main__":
    run_from_stdin(GrowthLoad, lambda load: GrowthRunner(load).grow())
