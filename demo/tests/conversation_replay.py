"""Replay recorded conversations against the demo, and compare the messages that the models received."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from demo.tests.conftest import Caller
from demo.tests.recorded import read_events
from tests.recordings.archive import Recording

FOLDERS = {"1.11": "dify-1.11.2", "1.13": "dify-1.13.0", "1.16": "dify-1.16.1"}
ALL = tuple(FOLDERS)
APPS = {
    "chat-plain": "demo-chat",
    "chat-tiny-context": "demo-chat",
    "chat": "demo-chat",
    "agent": "demo-agent-chat",
    "agent-new": "demo-agent",
    "agent-new-full": "demo-agent",
    "chatflow": "demo-advanced-chat",
    "chatflow-static": "demo-advanced-chat-forgetful",
    "completion": "demo-completion",
    "workflow": "demo-workflow",
}
"""The demo's app for each recorded app."""

Entry = tuple[str, Any]
Json = dict[str, Any]
Ending = Literal["read", "stop", "leave"]


@dataclass
class Turn:
    """One turn, recorded or replayed."""

    query: str
    events: list[Json]
    sent: list[Entry]
    """Role and text of the messages that the model received before the question."""

    @property
    def answer(self) -> str:
        """The streamed text, without the last message of a New Agent, which repeats it."""
        agent = any(event["event"] == "agent_message" for event in self.events)
        texts = [event for event in self.events if "answer" in event and not (agent and event["event"] == "message")]
        return "".join(event["answer"] for event in texts)


@dataclass
class Replay:
    """One recorded conversation, replayed in the demo."""

    demo: Caller
    version: str
    conversation_id: str = ""
    turns: list[Turn] = field(default_factory=list)

    def ask(self, recorded: Recording, ending: Ending = "read") -> Turn:
        body = {**recorded.request_json, "query": translate_keywords(recorded.request_json["query"])}
        return self.ask_body(APPS[recorded.request["app"]], body, ending)

    def ask_body(self, app: str, body: Json, ending: Ending = "read") -> Turn:
        body["conversation_id"] = self.conversation_id
        response = run_turn(self.demo, f"{app}@{self.version}", body, ending)
        run = self.demo.log.runs[-1]
        self.conversation_id = run.conversation_id
        self.turns.append(Turn(body["query"], events_of(response), list(run.history)))
        return self.turns[-1]


def translate_keywords(query: str) -> str:
    """Translate the keywords of the recorded model: `SLOW:8:0.3` becomes `SLOW:8x200`."""
    return re.sub(r"SLOW:(\d+):[\d.]+", r"SLOW:\1x200", query)


def run_turn(demo: Caller, app: str, body: Json, ending: Ending) -> bytes:
    """Run a turn and return its stream. After the first word, 'stop' stops it and 'leave' disconnects.

    The run has ended when this returns.
    """
    if ending == "read":
        return demo.post("/chat-messages", app, body).content
    received = b""
    with demo.http.stream("POST", f"{demo.server.url}/chat-messages", headers=demo.headers(app), json=body) as response:
        chunks = response.iter_raw()
        while b"tick 1 " not in received:
            received += next(chunks)
        if ending == "stop":
            task_id = next(event["task_id"] for event in read_events(received) if "task_id" in event)
            demo.post(f"/chat-messages/{task_id}/stop", app, {"user": body["user"]})
            received += b"".join(chunks)
    run = demo.log.runs[-1]
    demo.log.wait(lambda log: run.state != "running" and (ending == "stop" or run.disconnected_at))
    return received


def events_of(body: bytes) -> list[Json]:
    """Return the events of a stream, or the body of a blocking response as the only one."""
    return [json.loads(body)] if body.startswith(b"{") else read_events(body)


def recorded_turn(recorded: Recording) -> Turn:
    turn = Turn(recorded.request_json["query"], events_of(recorded.body), [])
    if turn.answer.startswith("ECHO") and turn.answer.endswith("}"):
        messages = json.loads(turn.answer.removeprefix("ECHO "))["messages"]
        turn.sent = [(role, text_of(content)) for role, content in messages if role != "system"]
        while not turn.sent[-1][1]:
            del turn.sent[-1]  # pictures of the question follow its text
        assert turn.sent.pop() in [("user", turn.query), ("user", f"{turn.query}\n")]
    return turn


def text_of(content: Any) -> str:
    """Return the text of a message, which may also contain pictures."""
    return content if isinstance(content, str) else "".join(part for part in content if isinstance(part, str))


def start_second(turn: Turn) -> int:
    """Return the second in which the turn started, since 1970."""
    return next(int(event["created_at"]) for event in turn.events if "created_at" in event)


def shape(entries: Iterable[Entry], turns: list[Turn]) -> list[str]:
    """Describe the messages of a model without their texts: which questions, and how their answers differ."""
    found, last = [], turns[0]
    for role, text in entries:
        if role == "user":
            index = next(index for index, turn in enumerate(turns) if turn.query == text)
            found.append(f"question {index}")
            last = turns[index]
        else:
            found.append(f"{role}: {relation(text, last.answer)}" if role == "assistant" else role)
    return found


def relation(text: str, answer: str) -> str:
    """Describe how a remembered answer differs from the streamed one."""
    short = re.search(r"\.\.\.<(\d+) chars sha (\w{8})>$", text)
    if short:
        same = (int(short[1]), short[2]) == (len(answer), hashlib.sha1(answer.encode()).hexdigest()[:8])
        return "equal" if same else text
    if text in ("", answer):
        return "equal" if text else "empty"
    if text == answer.strip():
        return "stripped"
    return "longer" if text.startswith(answer) else text


def count_tokens(texts: Iterable[str]) -> int:
    """Count tokens like the recorded model."""
    return len("\n".join(texts)) // 4 + 3


def prompt_tokens(turn: Turn) -> int | None:
    """Return the number of prompt tokens, if the turn reports it."""
    for event in turn.events:
        if "metadata" in event:
            return int(event["metadata"]["usage"]["prompt_tokens"])
    return None


def texts_of(found: Iterable[str], turns: list[Turn]) -> Iterator[str]:
    """Yield the texts that a shape describes, taken from other turns."""
    last = turns[0]
    for item in found:
        if item.startswith("question"):
            last = turns[int(item.split()[1])]
            yield last.query
        else:
            yield {"empty": "", "equal": last.answer, "stripped": last.answer.strip()}[item.partition(": ")[2]]
