"""A scripted Dify and a scripted Replicate that answer questions of ``soak.questions`` and misbehave as these ask.

``python -m soak.upstreams LIMIT`` prints the ports of both and serves until it is stopped. LIMIT is the number of runs
that the proxy may have open in Dify. ``POST /soak/down?MILLISECONDS`` takes Dify away for that time, and
``GET /soak/report`` returns a ``Report``.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
import uuid
from collections import Counter
from typing import cast

import msgspec
import uvloop
from typing_extensions import override

from bench.dify_answers import CONVERSATION_ID, STREAM_HEAD, chunk, message
from bench.limits import allow_many_connections
from bench.upstream import DifyConnection
from openai_dify_proxy_demo.replicate import DEMO_MODELS
from soak.questions import FAILING, SLOWER, Question, client_of, picture, questions_in

SDXL = next(model for model in DEMO_MODELS if model.name == "stability-ai/sdxl")
SECRET = b"r8_soak"

_CALL = re.compile(r"TOOL (\w+)")
_TAIL = (
    '{"event":"message_end","conversation_id":"%s","message_id":"263e5347-b686-4792-b25c-6d3e0e3bf311",'
    '"task_id":"f801db06-1f8c-40ba-8922-9d8f3212ae7e","metadata":{"usage":{"prompt_tokens":3,"completion_tokens":26,'
    '"total_tokens":29,"total_price":"0.0002675","currency":"USD","latency":1.0}}}'
)
_FAILED = (
    '{"event":"error","task_id":"f801db06-1f8c-40ba-8922-9d8f3212ae7e","status":400,'
    '"code":"completion_request_error","message":"soak"}'
)
_REJECTED = b'{"code":"completion_request_error","message":"soak","status":400}'
_FULL = b'{"code":"too_many_requests","message":"Too many requests. Please try again later.","status":429}'


class GenerateBody(msgspec.Struct):
    query: str = ""
    conversation_id: str | None = None


class PredictionInput(msgspec.Struct):
    prompt: str = ""


class PredictionBody(msgspec.Struct):
    input: PredictionInput


class Report(msgspec.Struct):
    """``runs`` counts the runs of each question, ``peak`` the most runs that were open at once. ``over_admitted`` is
    when runs began that were too many, in seconds since the epoch."""

    runs: dict[str, int]
    crossed: list[str]
    over_admitted: list[float]
    peak: int


class Scripted:
    """What all connections share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.events = 0
        self.runs: Counter[str] = Counter()
        self.crossed: list[str] = []
        self.owners: dict[str, str] = {}
        """The client of each conversation."""
        self.open: set[SoakDify] = set()
        self.over_admitted: list[float] = []
        self.peak = 0
        self.connections: set[SoakDify] = set()
        self.port = 0
        self.server: asyncio.Server | None = None

    def begin(self, run: SoakDify) -> None:
        self.open.add(run)
        self.peak = max(self.peak, len(self.open))
        if len(self.open) > self.limit:
            self.over_admitted.append(time.time())

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: SoakDify(self, loop), "127.0.0.1", self.port, backlog=4096, reuse_address=True
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def go_away(self, seconds: float) -> None:
        """Refuse and abort all connections for a while."""
        assert self.server is not None
        self.server.close()
        for connection in [*self.connections]:
            connection.abort()
        await asyncio.sleep(seconds)
        await self.listen()

    def report(self) -> bytes:
        return msgspec.json.encode(Report(dict(self.runs), self.crossed, self.over_admitted, self.peak))


class SoakDify(DifyConnection):
    """One connection to Dify."""

    def __init__(self, scripted: Scripted, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(scripted, loop)  # type: ignore[arg-type] # only ``events`` of it is used
        self._scripted = scripted
        self._tasks: set[asyncio.Task[None]] = set()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._scripted.connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._scripted.connections.discard(self)
        self._scripted.open.discard(self)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    @override
    def on_message_complete(self) -> None:
        path, _, query = self.url.partition(b"?")
        match path:
            case b"/v1/chat-messages":
                self._generate(msgspec.json.decode(self.body, type=GenerateBody))
            case b"/soak/report":
                self.answer_json(self._scripted.report())
            case b"/soak/down":
                self.answer_json(b"{}")
                self._tasks.add(self.loop.create_task(self._scripted.go_away(int(query) / 1000)))
            case _:
                super().on_message_complete()

    def _generate(self, body: GenerateBody) -> None:
        asked = questions_in(body.query)
        if not asked:  # a probe of the proxy
            self.answer_json(_REJECTED, b"400 BAD REQUEST")
            return
        question = asked[-1]
        conversation = self._conversation(body, {client_of(each.marker) for each in asked})
        if question.fault == "full":
            self.answer_json(_FULL, b"429 TOO MANY REQUESTS")
        elif question.fault == "rejected":
            self.answer_json(_REJECTED, b"400 BAD REQUEST")
        else:
            self._scripted.runs[question.marker] += 1
            self._scripted.begin(self)
            self._run(question, conversation, body.query)

    def _conversation(self, body: GenerateBody, clients: set[str]) -> str:
        """Return the conversation of a run. Record it if it has questions of several clients."""
        name = body.conversation_id or str(uuid.uuid4())
        owner = self._scripted.owners.setdefault(name, next(iter(clients)))
        if clients != {owner}:
            self._scripted.crossed.append(f"conversation of {owner} has questions of {', '.join(sorted(clients))}")
        return name

    def _run(self, question: Question, conversation: str, query: str) -> None:
        call = _CALL.search(query)
        if call is None:
            pieces = question.pieces
        else:
            arguments = msgspec.json.encode({"marker": question.marker}).decode()
            pieces = [f'<tool_call>{{"name": "{call[1]}", "arguments": {arguments}}}</tool_call>']
        frames = [_in(conversation, message(piece)) for piece in pieces]
        self.write(STREAM_HEAD + frames[0])
        gap = question.gap / 1000 * (SLOWER if question.fault == "slow" else 1)
        last = len(frames) // 2 if question.fault in FAILING else len(frames)
        self._next(frames[1:last], question, conversation, gap)

    def _next(self, frames: list[bytes], question: Question, conversation: str, gap: float) -> None:
        self.loop.call_later(gap, self._continue, frames, question, conversation, gap)

    def _continue(self, frames: list[bytes], question: Question, conversation: str, gap: float) -> None:
        if self.transport is None:
            return
        if frames:
            self.write(frames[0])
            self._next(frames[1:], question, conversation, gap)
        elif question.fault == "cut":
            self.abort()
        elif question.fault != "silence":
            self._scripted.open.discard(self)
            end = _FAILED if question.fault == "midway" else _TAIL % conversation
            self.write(chunk(end) + b"0\r\n\r\n")


def _in(conversation: str, event: str) -> bytes:
    return chunk(event.replace(CONVERSATION_ID, conversation))


class SoakReplicate(DifyConnection):
    """One connection to Replicate, whose predictions have ended when they are created."""

    def __init__(self, origin: list[str], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(cast("object", None), loop)  # type: ignore[arg-type] # it is not used
        self._origin = origin

    @override
    def on_message_complete(self) -> None:
        path = self.url.partition(b"?")[0].decode()
        if path == "/v1/predictions":
            self._predict(msgspec.json.decode(self.body, type=PredictionBody).input.prompt)
        elif path.startswith("/out/"):
            data = picture(path.removeprefix("/out/").removesuffix(".png"))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
            self.write(head % len(data) + data)
        elif path == f"/v1/models/{SDXL.name}/versions/{SDXL.version}":
            self.answer_json(msgspec.json.encode(SDXL.version_body()))
        else:
            self.answer_json(b'{"detail":"Not found."}', b"404 Not Found")

    def _predict(self, prompt: str) -> None:
        (question,) = questions_in(prompt)
        answer: dict[str, object] = {"id": question.marker, "status": "succeeded", "output": None, "error": None}
        match question.fault:
            case "full":
                self.answer_json(b'{"detail":"Request was throttled.","retry_after":1}', b"429 Too Many Requests")
                return
            case "cut" | "silence":
                assert self.transport is not None
                self.transport.abort()
                return
            case "rejected" | "midway":
                answer |= {"status": "failed", "error": "soak"}
            case _:
                answer |= {"output": [f"{self._origin[0]}/out/{question.marker}.png"]}
        self.answer_json(msgspec.json.encode(answer), b"201 Created")


async def serve(limit: int) -> None:
    loop = asyncio.get_running_loop()
    scripted = Scripted(limit)
    await scripted.listen()
    origin: list[str] = []
    replicate = await loop.create_server(lambda: SoakReplicate(origin, loop), "127.0.0.1", 0, backlog=1024)
    port = replicate.sockets[0].getsockname()[1]
    origin.append(f"http://127.0.0.1:{port}")
    print(scripted.port, port, flush=True)
    await replicate.serve_forever()


if __name__ == "__main__":
    allow_many_connections()
    uvloop.run(serve(int(sys.argv[1])))
