"""One run: its script, its stop flag, and the queue of frames for its reader."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from openai_dify_proxy_demo.apps import DemoApp
from openai_dify_proxy_demo.dialects import GRAPH_MODES, Dialect
from openai_dify_proxy_demo.events import Envelope, Event, ToolCall, Usage, count_tokens
from openai_dify_proxy_demo.log import DemoLog, LoggedRun, RunState
from openai_dify_proxy_demo.memory import Conversation, Entry, Message
from openai_dify_proxy_demo.script import PIECES_BEFORE_TROUBLE, Script

PING = b"event: ping\n\n"
"""Dify's ping is this bare line: no data, so an SSE parser dispatches nothing for it."""


class Mark(Enum):
    """What a reader finds in a run's queue beside frames."""

    END = "the stream is complete"
    CUT = "the connection breaks"
    GONE = "the client left"


class StoppedByUserError(Exception):
    """The stop route was called for this run."""


class ModelFailedError(Exception):
    """The model refused, or failed in the middle of its answer; `kind` is a key of PROVIDER_ERRORS."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class StreamBreaksError(Exception):
    """The script wants the stream to end without a terminal event; `cut` breaks the connection as well."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__("the stream breaks off")
        self.cut = cut


@dataclass(frozen=True)
class Timing:
    """Every duration of the demo, in seconds."""

    token: float = 0.02
    """Before each piece of an answer."""
    ping: float = 10.0
    """Between pings, counted from the request."""
    hang: float = 300.0
    """How long a stream that will never have an event is held."""
    naming: float = 1.0
    """Factor of the time that naming a conversation takes; 0 for tests."""


DEMO_PACE = Timing()
"""Words come at the pace of a fast model."""

INSTANT = Timing(token=0.0, naming=0.0)
"""No waiting for words; what a question asks for, such as `SLOW`, still takes its time."""


@dataclass
class Run:
    """What the modes' plays act on: they emit frames, wait, and say in the end how it went."""

    app: DemoApp
    dialect: Dialect
    timing: Timing
    script: Script
    envelope: Envelope
    question: str
    inputs: dict[str, Any]
    files_url: str
    """Where the demo serves produced files."""
    log: DemoLog
    record: LoggedRun
    conversation: Conversation | None = None
    history: list[Entry] = field(default_factory=list)
    """What the model is sent of earlier turns."""
    message: Message | None = None
    stop_requested: asyncio.Event = field(default_factory=asyncio.Event)
    frames: asyncio.Queue[Event | bytes | Mark] = field(default_factory=asyncio.Queue)
    pings: bool = True
    """Whether pings go out while nothing else does."""
    started: float = field(default_factory=time.monotonic)
    said: str = ""

    @property
    def is_graph(self) -> bool:
        return self.app.mode in GRAPH_MODES

    def emit(self, frame: Event | bytes) -> None:
        """Leave a frame for the reader; nobody reads any more once the client left."""
        if self.record.disconnected_at is None:
            self.frames.put_nowait(frame)

    def think(
        self,
        thought_id: str,
        position: int,
        text: str = "",
        tool: ToolCall | None = None,
        files: tuple[str, ...] = (),
        *,
        answer: str | None = None,
    ) -> None:
        """Tell a step of an agent and store it as it is now, with the answer by then, which is its text by default."""
        event = self.envelope.thought(thought_id, position, text, tool, files)
        self.emit(event)
        if self.message:
            self.message.thoughts[thought_id] = {**event, "answer": text if answer is None else answer}

    async def pause(self, seconds: float) -> None:
        """Wait, unless the run is stopped meanwhile: then StoppedByUserError."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.stop_requested.wait()
        else:
            await asyncio.sleep(0)
        if self.stop_requested.is_set():
            raise StoppedByUserError

    async def overture(self) -> None:
        """What delays the first event, by the script and by the version."""
        script = self.script
        if script.headers or script.fault == "silence":
            self.pings = False
            await self.pause(script.headers or self.timing.hang)
            if script.fault == "silence":
                raise StreamBreaksError(cut=False)
        self.pings = True
        if (self.is_graph and self.dialect.graphs_in_worker) or script.fault == "pings":
            self.emit(PING)
        if script.fault == "pings":
            await self.pause(self.timing.hang)
            raise StreamBreaksError(cut=False)
        if script.queue:
            self.pings = False
            await self.pause(script.queue)
            self.pings = True

    async def speak(self, pieces: tuple[str, ...], *, troubled: bool = True) -> AsyncIterator[str]:
        """The pieces of a text, one after the other, with what the script puts in their middle."""
        trouble_at = min(PIECES_BEFORE_TROUBLE, len(pieces)) if troubled else -1
        if troubled and self.script.error and not self.script.error_midway:
            raise ModelFailedError(self.script.error)
        delay = self.timing.token if self.script.delay is None else self.script.delay
        for index, piece in enumerate(pieces):
            if index == trouble_at:
                await self._meet_trouble()
            await self.pause(delay)
            self.said += piece
            yield piece
        if len(pieces) == trouble_at:
            await self._meet_trouble()

    async def _meet_trouble(self) -> None:
        script = self.script
        if script.error:
            raise ModelFailedError(script.error)
        if script.oversize:
            self.emit(self.envelope.text("x" * script.oversize))
        match script.fault:
            case "cut" | "eof":
                raise StreamBreaksError(cut=script.fault == "cut")
            case "garbage":
                self.emit(b'data: {"event": "message", "answer": \n\n')
            case "badutf8":
                self.emit(b'data: {"event":"message","answer":"\xff\xfe"}\n\n')
            case "midsilence":
                self.pings = False
                await self.pause(self.timing.hang)
                raise StreamBreaksError(cut=False)
            case "silence" | "pings" | None:
                return

    def usage(self) -> Usage:
        """The tokens of what was asked and said."""
        prompt = "".join(text for _, text in self.history) + self.question
        return Usage(count_tokens(prompt), count_tokens(self.said))

    def finish(
        self,
        state: RunState,
        *,
        answer: str | None = None,
        usage: Usage | None = None,
        status: str = "normal",
        error: str | None = None,
    ) -> None:
        """Store how the run ended; the answer is what was said, unless another one is given.

        `status` and `error` are those of the stored turn.
        """
        answer = self.said if answer is None else answer
        if self.message:
            self.message.status, self.message.error = status, error
            self._store(self.message, state, answer, usage or Usage())

        def change() -> None:
            self.record.state = state
            self.record.finished_at = time.monotonic()
            self.record.answer = answer

        self.log.change(change)

    def _store(self, message: Message, state: RunState, answer: str, usage: Usage) -> None:
        """What stays of the answer: nothing of one that failed, and of one whose client left only a chatflow's."""
        gone = self.record.disconnected_at is not None
        kept = self.dialect.abandoned_chatflow_kept and self.app.mode == "advanced-chat"
        if state == "failed" or (gone and not kept):
            return
        message.answer = answer if self.is_graph else answer.strip()
        message.usage = usage if message.answer else Usage()
        message.in_session = True


def new_id() -> str:
    return str(uuid.uuid4())
