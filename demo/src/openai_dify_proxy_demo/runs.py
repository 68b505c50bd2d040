"""One run: its script, its stop signal, and the queue of frames for its stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from openai_dify_proxy_demo.apps import DemoApp
from openai_dify_proxy_demo.dialects import GRAPH_MODES, Dialect
from openai_dify_proxy_demo.events import Envelope, Event, ToolCall, Usage, count_tokens
from openai_dify_proxy_demo.file_store import FileStore
from openai_dify_proxy_demo.log import DemoLog, LoggedRun, RunState
from openai_dify_proxy_demo.memory import Conversation, Message, ModelMessage
from openai_dify_proxy_demo.script import PIECES_BEFORE_FAILURE, Script

if TYPE_CHECKING:
    from openai_dify_proxy_demo.forms import Form

PING = b"event: ping\n\n"
"""Dify's ping has no data, so SSE parsers do not dispatch it."""

_TEXT_EVENTS = ("message", "text_chunk", "reasoning_chunk", "message_end")


class Mark(Enum):
    """A signal in the queue of frames."""

    END = "the stream is complete"
    CUT = "the connection is aborted"
    DISCONNECTED = "the client disconnected"


Frame = Event | bytes | Mark


class StoppedByUserError(Exception):
    """Raised when the stop route was called for this run."""


class ModelFailedError(Exception):
    """Raised when the model fails. `kind` is a key of PROVIDER_ERRORS."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class StreamBreaksError(Exception):
    """Raised to end the stream without a terminal event; `cut` aborts the connection too."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__("The stream ends without a terminal event.")
        self.cut = cut


@dataclass(frozen=True)
class Timing:
    """The delays of the scripted Dify, in seconds."""

    token: float = 0.02
    """Before each piece of an answer."""
    ping: float = 10.0
    """Between pings, counted from the request."""
    hang: float = 300.0
    """How long a silent stream stays open."""
    naming: float = 1.0
    """Factor for the time it takes to name a conversation; 0 disables the delay."""


DEMO_PACE = Timing()
"""The pace of a fast model."""

INSTANT = Timing(token=0.0, naming=0.0)
"""No delays except those that a message requests, such as `SLOW`."""


@dataclass
class Run:
    """One run. The code of each app mode emits frames, waits, and finishes it."""

    app: DemoApp
    dialect: Dialect
    timing: Timing
    script: Script
    envelope: Envelope
    question: str
    inputs: dict[str, Any]
    files_url: str
    """The base URL of the files that the run produces."""
    files: FileStore
    log: DemoLog
    record: LoggedRun
    conversation: Conversation | None = None
    history: list[ModelMessage] = field(default_factory=list)
    """The earlier messages that the model receives."""
    message: Message | None = None
    stop_requested: asyncio.Event = field(default_factory=asyncio.Event)
    frames: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue)
    """The frames for the stream of the request that started the run."""
    followers: list[asyncio.Queue[Frame]] = field(default_factory=list)
    """The frames for each reader of the run's events."""
    pings: bool = True
    """Whether the stream sends pings while it is idle."""
    started: float = field(default_factory=time.monotonic)
    text: str = ""
    """The answer so far."""
    drops: int = 0
    """How many streams of the run have broken off."""
    end: Event | None = None
    """The event `workflow_finished`, once the graph has ended."""
    form: Form | None = None
    """The form that the run waits for."""
    pauses: int = 0
    """How often the run has paused."""
    graph_events: list[Event] = field(default_factory=list)
    """The events of the graph and its nodes so far, without text."""

    @property
    def is_graph(self) -> bool:
        return self.app.mode in GRAPH_MODES

    def emit(self, frame: Event | bytes) -> None:
        """Queue a frame for the stream, unless the client has disconnected."""
        if isinstance(frame, dict) and frame["event"] == "workflow_finished":
            self.end = frame
        if self.is_graph and isinstance(frame, dict) and frame["event"] not in _TEXT_EVENTS:
            self.graph_events.append(frame)
        if self.record.disconnected_at is None:
            self.frames.put_nowait(frame)
        for follower in self.followers:
            follower.put_nowait(frame)

    def end_streams(self, mark: Mark) -> None:
        """End all streams of the run, until it goes on after a pause."""
        for frames in (self.frames, *self.followers):
            frames.put_nowait(mark)
        self.followers.clear()

    def follow(self) -> asyncio.Queue[Frame]:
        """Return a queue of the frames from now on."""
        frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.followers.append(frames)
        return frames

    def emit_thought(
        self,
        thought_id: str,
        position: int,
        text: str = "",
        tool: ToolCall | None = None,
        files: tuple[str, ...] = (),
        *,
        answer: str | None = None,
    ) -> None:
        """Emit an agent step and store its current state. `answer` is the answer so far, by default `text`."""
        event = self.envelope.thought(thought_id, position, text, tool, files)
        self.emit(event)
        if self.message:
            self.message.thoughts[thought_id] = {**event, "answer": text if answer is None else answer}

    async def wait(self, seconds: float) -> None:
        """Wait. Raise StoppedByUserError as soon as the run is stopped."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.stop_requested.wait()
        else:
            await asyncio.sleep(0)
        if self.stop_requested.is_set():
            raise StoppedByUserError

    async def delay_first_event(self) -> None:
        """Apply the script's and the dialect's delays before the first event."""
        script = self.script
        if script.headers or script.fault == "silence":
            self.pings = False
            await self.wait(script.headers or self.timing.hang)
            if script.fault == "silence":
                raise StreamBreaksError(cut=False)
        self.pings = True
        if (self.is_graph and self.dialect.graphs_in_worker) or script.fault == "pings":
            self.emit(PING)
        if script.fault == "pings":
            await self.wait(self.timing.hang)
            raise StreamBreaksError(cut=False)
        if script.queue:
            self.pings = False
            await self.wait(script.queue)
            self.pings = True

    async def stream_pieces(self, pieces: tuple[str, ...], *, interruptible: bool = True) -> AsyncIterator[str]:
        """Yield the pieces of a text at the script's pace, and append them to `text`.

        If `interruptible`, the script's error or fault happens before or among them.
        """
        interrupt_at = min(PIECES_BEFORE_FAILURE, len(pieces)) if interruptible else -1
        if interruptible and self.script.error and not self.script.error_midway:
            raise ModelFailedError(self.script.error)
        delay = self.timing.token if self.script.delay is None else self.script.delay
        for index, piece in enumerate(pieces):
            if index == interrupt_at:
                await self._interrupt()
            await self.wait(delay)
            self.text += piece
            yield piece
        if len(pieces) == interrupt_at:
            await self._interrupt()

    async def _interrupt(self) -> None:
        script = self.script
        if script.drops and self.record.streaming:
            self.drops += 1
            self.frames.put_nowait(Mark.CUT)
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
                await self.wait(self.timing.hang)
                raise StreamBreaksError(cut=False)
            case "silence" | "pings" | None:
                return

    def usage(self) -> Usage:
        """Return the token counts of the prompt and the answer."""
        prompt = "".join(text for _, text in self.history) + self.question
        return Usage(count_tokens(prompt), count_tokens(self.text))

    def restart(self) -> None:
        """Record that the run goes on after a pause."""
        self.stop_requested = asyncio.Event()

        def change() -> None:
            self.record.state = "running"
            self.record.finished_at = self.record.disconnected_at = None
            self.log.active[self.record.task_id] = self.record

        self.log.change(change)

    def finish(
        self,
        state: RunState,
        *,
        answer: str | None = None,
        usage: Usage | None = None,
        status: str = "normal",
        error: str | None = None,
    ) -> None:
        """Record the end of the run and store the answer, which is `text` by default.

        `status` and `error` are those of the stored turn.
        """
        answer = self.text if answer is None else answer
        if self.message:
            self.message.status, self.message.error = status, error
            self._store(self.message, state, answer, usage or Usage())

        def change() -> None:
            self.log.active.pop(self.record.task_id, None)
            self.record.state = state
            self.record.finished_at = time.monotonic()
            self.record.answer = answer

        self.log.change(change)

    def _store(self, message: Message, state: RunState, answer: str, usage: Usage) -> None:
        """Store the answer, unless the run failed, or its client disconnected and the dialect then stores none."""
        abandoned = self.record.disconnected_at is not None
        stored_anyway = self.dialect.stores_abandoned_chatflow_answer and self.app.mode == "advanced-chat"
        if state == "failed" or (abandoned and not stored_anyway):
            return
        message.answer = answer if self.is_graph else answer.strip()
        message.usage = usage if message.answer else Usage()
        message.in_session = True


def new_id() -> str:
    return str(uuid.uuid4())
