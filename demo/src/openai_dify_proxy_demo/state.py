"""The demo's memory while it runs: conversations, uploads and active runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.apps import DemoApp
from openai_dify_proxy_demo.common import remember
from openai_dify_proxy_demo.dialects import CHAT_MODES, GRAPH_MODES, Dialect
from openai_dify_proxy_demo.events import Envelope
from openai_dify_proxy_demo.log import DemoLog, LoggedRun, LoggedStop
from openai_dify_proxy_demo.memory import Conversation, Entry, Message, count_earlier, entries_of, recalled_turns
from openai_dify_proxy_demo.plays import perform
from openai_dify_proxy_demo.replies import RefusedError
from openai_dify_proxy_demo.runs import Run, Timing, new_id
from openai_dify_proxy_demo.script import read_script

KEPT = 20_000
"""How many conversations, and how many uploads, are kept."""


@dataclass(frozen=True)
class Upload:
    id: str
    app: str
    user: str
    name: str


@dataclass(frozen=True)
class Ask:
    """A request to generate, after all checks but the conversation's."""

    app: DemoApp
    dialect: Dialect
    user: str
    question: str
    inputs: dict[str, Any]
    files: list[dict[str, Any]]
    conversation_id: str
    streaming: bool
    base_url: str


@dataclass
class DemoState:
    timing: Timing
    faults: bool = False
    """Whether questions may ask for faults."""
    clock: Callable[[], float] = time.time
    """The time of day in seconds since 1970, by which turns are stored."""
    log: DemoLog = field(default_factory=DemoLog)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def conversation(self, conversation_id: str, app: DemoApp, user: str) -> Conversation | None:
        """The conversation of that id, if it belongs to the app and the user."""
        found = self.conversations.get(conversation_id)
        return found if found and (found.app, found.user) == (app.name, user) else None

    def keep_upload(self, upload: Upload) -> None:
        remember(self.uploads, upload.id, upload, KEPT)

    def prepare(self, ask: Ask, conversation: Conversation | None, *, stored: bool = True) -> Run:
        """A run that is ready to be started. A chat's turn is stored at once, its answer later."""
        app, now = ask.app, int(self.clock())
        if stored and app.mode in CHAT_MODES and conversation is None:
            conversation = Conversation(new_id(), app.name, ask.user, ask.question[:100], ask.inputs, now, now)
            remember(self.conversations, conversation.id, conversation, KEPT)
        envelope = _envelope(ask, conversation, now)
        message = Message(envelope.message_id, ask.question, ask.inputs, now)
        turns = _store_turn(app, conversation, message)
        history = list(entries_of(turns, app.mode))
        plain = plain_answer(ask, count_earlier(turns, message))
        script = read_script(ask.question, plain, recalled=recital(history), faults=self.faults)
        return Run(
            app=app,
            dialect=ask.dialect,
            timing=self.timing,
            script=script,
            envelope=envelope,
            question=ask.question,
            inputs=ask.inputs,
            files_url=ask.base_url,
            log=self.log,
            record=_record(ask, envelope, history),
            conversation=conversation,
            history=history,
            message=message,
        )

    def start(self, run: Run) -> None:
        """Let a run go on by itself until it ends or is stopped."""
        self.runs[run.envelope.task_id] = run
        self.log.change(lambda: self.log.runs.append(run.record))
        task = asyncio.create_task(perform(run))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: self.runs.pop(run.envelope.task_id, None))

    def stop(self, task_id: str, app: DemoApp, user: str) -> None:
        """The stop routes: without effect for an unknown task, and for another user where the version checks."""
        run = self.runs.get(task_id)
        effective = (
            run is not None and run.app.name == app.name and (run.envelope.user == user or not _checks_user(run))
        )
        if run and effective:
            run.stop_requested.set()
        self.log.change(lambda: self.log.stops.append(LoggedStop(task_id, user, app.name, effective, time.monotonic())))

    async def close(self) -> None:
        """End every run; their streams break off."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _store_turn(app: DemoApp, conversation: Conversation | None, message: Message) -> list[Message]:
    """Store a new turn and return the turns its model is sent."""
    if conversation is None:
        return []
    conversation.messages.append(message)
    conversation.updated_at = message.created_at
    return recalled_turns(conversation, message, app.mode) if app.memory else []


def recital(history: list[Entry]) -> str:
    """What the model was sent of earlier turns, each message as JSON on a line of its own."""
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in history) or "I remember nothing."


def plain_answer(ask: Ask, count: int) -> str:
    """What the demo says to a question without keywords: who it is, what it was asked, how much it remembers."""
    parts = [f"This is the demo {ask.app.mode} app. You asked: “{ask.question.strip()}”"]
    if ask.app.mode in CHAT_MODES and ask.app.memory:
        parts.append(
            f"I remember {count} earlier message{'s' if count > 1 else ''} of this conversation."
            if count
            else "This conversation has just begun."
        )
    given = {
        name: value
        for name, value in ask.inputs.items()
        if value not in (None, "", ask.question) and not _is_file(value)
    }
    if given:
        parts.append("Inputs: " + ", ".join(f"{name} = {value}" for name, value in given.items()) + ".")
    if ask.files:
        parts.append(f"Files: {', '.join(str(file.get('type')) for file in ask.files)}.")
    return " ".join(parts)


def checked_files(
    state: DemoState, ask_user: str, app: DemoApp, dialect: Dialect, files: object
) -> list[dict[str, Any]]:
    """The files of a request; raises RefusedError for what Dify would not take."""
    if files is None:
        return []
    if not isinstance(files, list):
        raise RefusedError(400, "invalid_param", "1 validation error\nfiles\n  Input should be a valid list")
    checked = [file for file in files if isinstance(file, dict) and file.get("transfer_method")]
    for file in checked:
        if file.get("type") not in ("image", "document", "audio", "video", "custom"):
            raise RefusedError(400, "invalid_param", f"'{file.get('type')}' is not a valid FileType")
        if file["transfer_method"] == "local_file":
            upload = state.uploads.get(str(file.get("upload_file_id")))
            if upload is None or (dialect.uploads_bound and (upload.app, upload.user) != (app.name, ask_user)):
                raise RefusedError(400, "invalid_param", "Invalid upload file")
        elif file["transfer_method"] != "remote_url":
            raise RefusedError(400, "invalid_param", f"'{file['transfer_method']}' is not a valid FileTransferMethod")
        elif not str(file.get("url")).startswith(("http://", "https://")):
            raise RefusedError(400, "invalid_param", f"Reached maximum retries (3) for URL {file.get('url')}")
    return checked


def _envelope(ask: Ask, conversation: Conversation | None, now: int) -> Envelope:
    return Envelope(
        mode=ask.app.mode,
        dialect=ask.dialect,
        task_id=new_id(),
        message_id=new_id(),
        conversation_id=conversation.id if conversation else "",
        workflow_run_id=new_id() if ask.app.mode in GRAPH_MODES else "",
        workflow_id=new_id(),
        end_user_id=new_id(),
        user=ask.user,
        created_at=now,
        user_sent_files=bool(ask.files),
    )


def _record(ask: Ask, envelope: Envelope, history: list[Entry]) -> LoggedRun:
    return LoggedRun(
        task_id=envelope.task_id,
        app=ask.app.name,
        mode=ask.app.mode,
        dialect=ask.dialect.name,
        user=ask.user,
        question=ask.question,
        inputs=ask.inputs,
        conversation_id=envelope.conversation_id,
        message_id=envelope.message_id,
        workflow_run_id=envelope.workflow_run_id,
        streaming=ask.streaming,
        history=tuple(history),
    )


def _checks_user(run: Run) -> bool:
    return not run.is_graph or run.dialect.graph_stop_checks_user


def _is_file(value: object) -> bool:
    return isinstance(value, (dict, list))
