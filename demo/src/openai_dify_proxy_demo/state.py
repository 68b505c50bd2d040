"""The state of one scripted Dify: conversations, uploads and active runs."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.apps import DemoApp
from openai_dify_proxy_demo.common import store_bounded
from openai_dify_proxy_demo.dialects import CHAT_MODES, GRAPH_MODES, Dialect
from openai_dify_proxy_demo.events import Envelope
from openai_dify_proxy_demo.execution import execute
from openai_dify_proxy_demo.file_store import FileStore
from openai_dify_proxy_demo.forms import Form
from openai_dify_proxy_demo.guide import ANSWER, QUESTION
from openai_dify_proxy_demo.input_files import Upload
from openai_dify_proxy_demo.log import DemoLog, LoggedRun, LoggedStop
from openai_dify_proxy_demo.memory import (
    Conversation,
    Message,
    ModelMessage,
    count_earlier,
    model_messages,
    recalled_turns,
)
from openai_dify_proxy_demo.runs import Run, Timing, new_id
from openai_dify_proxy_demo.script import DRAWN_ANSWER, asks_for_drawing, read_script
from openai_dify_proxy_demo.tool_model import tool_answer
from openai_dify_proxy_demo.tool_prompts import instruction_inputs, read_prompt, spoken_text, without_instructions

MAX_STORED = 20_000
"""The maximum number of conversations and of uploads; the oldest are dropped."""

MAX_ENDED = 100
"""The maximum number of ended and paused runs whose events can be read again."""


@dataclass(frozen=True)
class Generation:
    """A validated request for a run; only its conversation may be unknown."""

    app: DemoApp
    dialect: Dialect
    user: str
    question: str
    inputs: dict[str, Any]
    files: list[dict[str, Any]]
    seen: str
    """What the model sees of the files."""
    conversation_id: str
    streaming: bool
    base_url: str


@dataclass
class DemoState:
    """The state of one scripted Dify, and the operations of its routes."""

    timing: Timing
    faults: bool = False
    """Whether fault keywords are commands."""
    clock: Callable[[], float] = time.time
    """Returns the seconds since 1970, for the timestamps of turns."""
    log: DemoLog = field(default_factory=DemoLog)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    files: FileStore = field(default_factory=lambda: FileStore(secrets.token_bytes(32)))
    runs: dict[str, Run] = field(default_factory=dict)
    ended: dict[str, Run] = field(default_factory=dict)
    """The graphs that have ended or paused, by their run id."""
    forms: dict[str, Form] = field(default_factory=dict)
    """The forms of paused runs by their tokens, answered ones included."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def conversation(self, conversation_id: str, app: DemoApp, user: str) -> Conversation | None:
        """Return a conversation if it belongs to the app and the user."""
        found = self.conversations.get(conversation_id)
        return found if found and (found.app, found.user) == (app.name, user) else None

    def store_upload(self, upload: Upload) -> None:
        store_bounded(self.uploads, upload.id, upload, MAX_STORED)

    def prepare(self, request: Generation, conversation: Conversation | None, *, stored: bool = True) -> Run:
        """Return a run that is ready to start. In chat modes its turn is stored now, the answer at its end."""
        app, now = request.app, int(self.clock())
        if stored and app.mode in CHAT_MODES and conversation is None:
            name = request.question[:100]
            conversation = Conversation(new_id(), app.name, request.user, name, request.inputs, now, now)
            store_bounded(self.conversations, conversation.id, conversation, MAX_STORED)
        envelope = _envelope(request, conversation, now)
        message = Message(envelope.message_id, request.question, request.inputs, now)
        turns = _store_turn(app, conversation, message)
        history = list(model_messages(turns, app.mode))
        prompt = read_prompt(request.question, request.inputs, history)
        answer = tool_answer(prompt)
        if answer is None:
            answer = default_answer(request, count_earlier(turns, message))
        script = read_script(
            spoken_text(request.question),
            answer,
            recalled=recall_answer(history),
            draws=app.draws,
            faults=self.faults,
        )
        return Run(
            app=app,
            dialect=request.dialect,
            timing=self.timing,
            script=script,
            envelope=envelope,
            question=request.question,
            inputs=request.inputs,
            files_url=request.base_url,
            files=self.files,
            log=self.log,
            record=_record(request, envelope, history),
            conversation=conversation,
            history=history,
            message=message,
        )

    def start(self, run: Run) -> None:
        """Execute a run in the background until it ends or is stopped."""
        self.log.change(lambda: self.log.start(run.record))
        self._run(run, execute(run))

    def resume(self, form: Form, action: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Continue a run whose form was answered."""
        run = form.run
        run.form = None
        run.restart()
        self._run(run, execute(run, form.resume(action, inputs)))

    def _run(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        self.runs[run.envelope.task_id] = run
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: self._end(run))

    def _end(self, run: Run) -> None:
        self.runs.pop(run.envelope.task_id, None)
        if run.form is not None:
            store_bounded(self.forms, run.form.token, run.form, MAX_STORED)
        if run.end is not None or run.form is not None:
            store_bounded(self.ended, run.envelope.workflow_run_id, run, MAX_ENDED)

    def graph_run(self, run_id: str, app: DemoApp, user: str) -> Run | None:
        """Return a run of a graph, running or ended, if it belongs to the app and the user."""
        found = self.any_graph_run(run_id, app)
        return found if found and found.envelope.user == user else None

    def any_graph_run(self, run_id: str, app: DemoApp) -> Run | None:
        """Return a run of a graph, running, paused or ended, if it belongs to the app."""
        running = (run for run in self.runs.values() if run.is_graph and run.envelope.workflow_run_id == run_id)
        found = next(running, None) or self.ended.get(run_id)
        return found if found and found.app.name == app.name else None

    def stop(self, task_id: str, app: DemoApp, user: str) -> None:
        """Stop a run and log the call. Unknown tasks are ignored, and other users' if the version checks the user."""
        run = self.runs.get(task_id)
        effective = (
            run is not None and run.app.name == app.name and (run.envelope.user == user or not _checks_user(run))
        )
        if run and effective:
            run.stop_requested.set()
        self.log.change(lambda: self.log.stops.append(LoggedStop(task_id, user, app.name, effective, time.monotonic())))

    async def close(self) -> None:
        """Cancel all runs, which aborts their streams."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _store_turn(app: DemoApp, conversation: Conversation | None, message: Message) -> list[Message]:
    """Store a new turn, and return the turns that its model receives."""
    if conversation is None:
        return []
    conversation.messages.append(message)
    conversation.updated_at = message.created_at
    return recalled_turns(conversation, message, app.mode) if app.memory else []


def recall_answer(history: list[ModelMessage]) -> str:
    """Return the answer to `RECALL`: the earlier messages that the model received, one JSON array per line."""
    return (
        "\n".join(json.dumps(message, ensure_ascii=False) for message in history) or "I remember no earlier messages."
    )


def default_answer(request: Generation, count: int) -> str:
    """Return the answer to a message without keywords: it repeats the message, but no instructions about tools.
    The answer to a request for a drawing introduces it, and that to `QUESTION` the demo.

    `count` is the number of messages that the app remembers.
    """
    if spoken_text(request.question).strip() == QUESTION:
        return ANSWER
    if request.app.draws or asks_for_drawing(spoken_text(request.question)):
        return f"Files: {request.seen}. {DRAWN_ANSWER}" if request.seen else DRAWN_ANSWER
    parts = [f"Hello from the demo {request.app.mode} app, which repeats your message."]
    if request.app.mode in CHAT_MODES and request.app.memory:
        parts.append(
            f"I remember {count} earlier message{'s' if count > 1 else ''} from our conversation."
            if count
            else "This is the start of our conversation."
        )
    instructions = instruction_inputs(request.inputs)
    extra_inputs = {
        name: value
        for name, value in request.inputs.items()
        if value not in (None, "", request.question) and not _is_file(value) and name not in instructions
    }
    if extra_inputs:
        parts.append("Inputs: " + ", ".join(f"{name} = {value}" for name, value in extra_inputs.items()) + ".")
    if request.seen:
        parts.append(f"Files: {request.seen}.")
    parts.append(f"You wrote: “{without_instructions(request.question).strip()}”")
    return " ".join(parts)


def _envelope(request: Generation, conversation: Conversation | None, now: int) -> Envelope:
    return Envelope(
        mode=request.app.mode,
        dialect=request.dialect,
        task_id=new_id(),
        message_id=new_id(),
        conversation_id=conversation.id if conversation else "",
        workflow_run_id=new_id() if request.app.mode in GRAPH_MODES else "",
        workflow_id=new_id(),
        end_user_id=new_id(),
        user=request.user,
        created_at=now,
        user_sent_files=bool(request.files),
    )


def _record(request: Generation, envelope: Envelope, history: list[ModelMessage]) -> LoggedRun:
    return LoggedRun(
        task_id=envelope.task_id,
        app=request.app.name,
        mode=request.app.mode,
        dialect=request.dialect.name,
        user=request.user,
        question=request.question,
        inputs=request.inputs,
        conversation_id=envelope.conversation_id,
        message_id=envelope.message_id,
        workflow_run_id=envelope.workflow_run_id,
        streaming=request.streaming,
        history=tuple(history),
    )


def _checks_user(run: Run) -> bool:
    return not run.is_graph or run.dialect.graph_stop_checks_user


def _is_file(value: object) -> bool:
    return isinstance(value, (dict, list))
