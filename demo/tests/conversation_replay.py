"""Recorded conversations, and the same ones in the demo: what was asked and said, and what the model was sent."""

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
"""The demo's app for each recorded one."""

Entry = tuple[str, Any]
Json = dict[str, Any]
How = Literal["read", "stop", "leave"]


@dataclass
class Turn:
    """One turn as it was recorded, or as the demo played it."""

    query: str
    events: list[Json]
    sent: list[Entry]
    """Role and text of what the model was sent before the question."""

    @property
    def said(self) -> str:
        """The text that came; a New Agent's last message repeats it."""
        agent = any(event["event"] == "agent_message" for event in self.events)
        texts = [event for event in self.events if "answer" in event and not (agent and event["event"] == "message")]
        return "".join(event["answer"] for event in texts)


@dataclass
class Replay:
    """One recorded conversation in the demo."""

    demo: Caller
    version: str
    conversation_id: str = ""
    turns: list[Turn] = field(default_factory=list)

    def ask(self, recorded: Recording, how: How = "read") -> Turn:
        body = {**recorded.asked, "query": in_our_words(recorded.asked["query"])}
        return self.ask_body(APPS[recorded.request["app"]], body, how)

    def ask_body(self, app: str, body: Json, how: How = "read") -> Turn:
        body["conversation_id"] = self.conversation_id
        response = play(self.demo, f"{app}@{self.version}", body, how)
        run = self.demo.log.runs[-1]
        self.conversation_id = run.conversation_id
        self.turns.append(Turn(body["query"], events_of(response), list(run.history)))
        return self.turns[-1]


def in_our_words(query: str) -> str:
    """Return the question in the demo's words: `SLOW:8:0.3`, eight pieces 0.3 s apart, is `SLOW:8x200` here."""
    return re.sub(r"SLOW:(\d+):[\d.]+", r"SLOW:\1x200", query)


def play(demo: Caller, app: str, body: Json, how: How) -> bytes:
    """Ask the demo, and read the answer, or stop it, or leave it, after its first word. Every run ends before this."""
    if how == "read":
        return demo.post("/chat-messages", app, body).content
    received = b""
    with demo.http.stream("POST", f"{demo.server.url}/chat-messages", headers=demo.headers(app), json=body) as response:
        chunks = response.iter_raw()
        while b"tick 1 " not in received:
            received += next(chunks)
        if how == "stop":
            task_id = next(event["task_id"] for event in read_events(received) if "task_id" in event)
            demo.post(f"/chat-messages/{task_id}/stop", app, {"user": body["user"]})
            received += b"".join(chunks)
    run = demo.log.runs[-1]
    demo.log.wait(lambda log: run.state != "running" and (how == "stop" or run.disconnected_at))
    return received


def events_of(body: bytes) -> list[Json]:
    """The events of a stream, or the one body of an answer that was not streamed."""
    return [json.loads(body)] if body.startswith(b"{") else read_events(body)


def recorded_turn(recorded: Recording) -> Turn:
    turn = Turn(recorded.asked["query"], events_of(recorded.body), [])
    if turn.said.startswith("ECHO") and turn.said.endswith("}"):
        messages = json.loads(turn.said.removeprefix("ECHO "))["messages"]
        turn.sent = [(role, text_of(content)) for role, content in messages if role != "system"]
        while not turn.sent[-1][1]:
            del turn.sent[-1]  # the pictures of a question stand behind it
        assert turn.sent.pop() in [("user", turn.query), ("user", f"{turn.query}\n")]
    return turn


def text_of(content: Any) -> str:
    """The text of a message, which may hold pictures as well."""
    return content if isinstance(content, str) else "".join(part for part in content if isinstance(part, str))


def began(turn: Turn) -> int:
    return next(int(event["created_at"]) for event in turn.events if "created_at" in event)


def shape(entries: Iterable[Entry], turns: list[Turn]) -> list[str]:
    """What a model was sent, told apart from the words: which questions, and what of their answers."""
    found, last = [], turns[0]
    for role, text in entries:
        if role == "user":
            place = next(place for place, turn in enumerate(turns) if turn.query == text)
            found.append(f"question {place}")
            last = turns[place]
        else:
            found.append(f"{role}: {relation(text, last.said)}" if role == "assistant" else role)
    return found


def relation(text: str, said: str) -> str:
    """What a remembered answer is to the one that came."""
    short = re.search(r"\.\.\.<(\d+) chars sha (\w{8})>$", text)
    if short:
        same = (int(short[1]), short[2]) == (len(said), hashlib.sha1(said.encode()).hexdigest()[:8])
        return "as said" if same else text
    if text in ("", said):
        return "as said" if text else "nothing"
    if text == said.strip():
        return "stripped"
    return "more than was read" if text.startswith(said) else text


def tokens(texts: Iterable[str]) -> int:
    """As the recorded model counts what it is sent."""
    return len("\n".join(texts)) // 4 + 3


def billed(turn: Turn) -> int | None:
    """The tokens of the prompt, where the answer tells them."""
    for event in turn.events:
        if "metadata" in event:
            return int(event["metadata"]["usage"]["prompt_tokens"])
    return None


def words(found: Iterable[str], turns: list[Turn]) -> Iterator[str]:
    """A shape in the words of other turns."""
    last = turns[0]
    for item in found:
        if item.startswith("question"):
            last = turns[int(item.split()[1])]
            yield last.query
        else:
            yield {"nothing": "", "as said": last.said, "stripped": last.said.strip()}[item.partition(": ")[2]]
