"""The demo's model is sent of a conversation what the model of a real Dify was sent.

The recorded turns are asked again, in their order and in their seconds. What the recorded model was sent it tells by
its `ECHO`, or by the number of tokens that it was billed for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import pytest

from demo.tests.conftest import Caller, Clock
from demo.tests.conversation_replay import (
    ALL,
    FOLDERS,
    How,
    Json,
    Replay,
    Turn,
    began,
    billed,
    recorded_turn,
    shape,
    tokens,
    words,
)
from demo.tests.recorded import fields, order, read_events
from tests.recordings.archive import Recording, named


@dataclass(frozen=True)
class Thread:
    """Recorded turns of one conversation, and what was done to the stream of the first."""

    names: tuple[str, ...]
    first: How = "read"
    versions: tuple[str, ...] = ALL
    before: str = ""
    """A question that nobody recorded, asked before them."""

    def __str__(self) -> str:
        return self.names[0]


def numbered(name: str, last: int, first: How = "read") -> Thread:
    return Thread(tuple(f"{name}-{number}" for number in range(1, last + 1)), first)


THREADS = (
    numbered("hist-chat-after-preerror", 2),
    numbered("hist-chat-stop", 2, "stop"),
    numbered("hist-chat-disc", 2, "leave"),
    numbered("hist-flow-after-preerror", 2),
    numbered("hist-flow-after-miderror", 2),
    numbered("hist-flow-stop", 2, "stop"),
    numbered("hist-flow-disc", 2, "leave"),
    numbered("hist-flow-image", 2),
    numbered("hist-samesecond", 4),
    numbered("hist-tiny", 6),
    numbered("chat-block", 2),
    numbered("chatflow-llm-stream", 2),
    Thread(("chat-inputs-1", "chat-inputs-2-changed")),
    Thread(("agent-stream-tool", "agent-stream-turn2")),
    Thread(("newagent-stream-plain", "newagent-stream-turn2"), versions=("1.16",)),
    Thread(("newagent-disconnect", "newagent-disconnect-then-turn"), "leave", versions=("1.16",)),
    Thread(("newagent-hist-preerror-2",), versions=("1.16",), before="ERROR:bad"),
)

IN_ORDER = {
    *((version, "hist-samesecond-2") for version in ALL),
    ("1.11", "hist-tiny-3"),
    ("1.11", "hist-tiny-5"),
    ("1.13", "hist-tiny-6"),
    ("1.16", "chat-block-2"),
    ("1.16", "chatflow-llm-stream-2"),
}
"""Turns that began in the second of another, and in which Dify kept the order all the same: they are asked a second
later here."""

TOLD_BY_TOKENS = ("chat-plain", "chat-tiny-context")
"""Apps whose model is sent nothing but the conversation."""


@pytest.mark.parametrize(
    ("thread", "version"),
    [(thread, version) for thread in THREADS for version in thread.versions],
    ids=str,
)
def test_a_conversation_goes_on_as_recorded(timed: Caller, clock: Clock, thread: Thread, version: str) -> None:
    replay, theirs, second = Replay(timed, version), [], 0
    if thread.before:
        replay.ask_body("demo-agent", {"inputs": {}, "query": thread.before, "user": "h", "response_mode": "streaming"})
        theirs.append(Turn(thread.before, [], []))
    for place, name in enumerate(thread.names):
        recorded = named(FOLDERS[version], name)
        theirs.append(recorded_turn(recorded))
        clock.now += ((version, name) in IN_ORDER) or second != began(theirs[-1])
        second = began(theirs[-1])
        how = thread.first if place == 0 else "read"
        ours = replay.ask(recorded, how)
        compare_events(ours, theirs[-1], how)
        compare_memory(replay.turns, theirs, by_tokens=recorded.request["app"] in TOLD_BY_TOKENS)


def compare_events(ours: Turn, theirs: Turn, how: How) -> None:
    if how == "leave":
        assert order(theirs.events)[: len(order(ours.events))] == order(ours.events)
    else:
        assert order(ours.events) == order(theirs.events)
        assert fields(ours.events) == fields(theirs.events)


def compare_memory(ours: list[Turn], theirs: list[Turn], *, by_tokens: bool) -> None:
    found = shape(ours[-1].sent, ours)
    if theirs[-1].said.startswith("ECHO"):
        assert found == shape(theirs[-1].sent, theirs)
    if by_tokens and (prompt := billed(theirs[-1])):
        assert tokens([*words(found, theirs), theirs[-1].query]) == prompt


@pytest.mark.parametrize(
    ("version", "names", "expected"),
    [
        # The question is sent twice, once before the older turn; a chatflow leaves the empty answer out.
        ("1.16", ("chat-inputs-1", "chat-inputs-2-changed"), ["user", "assistant", "user", "assistant"]),
        ("1.13", ("chatflow-llm-stream-1", "chatflow-llm-stream-2"), ["user", "user", "assistant"]),
        # The older turn failed: its row stands first and has no answer, so it is taken for the question's own.
        ("1.13", ("hist-chat-after-preerror-1", "hist-chat-after-preerror-2"), ["user", "assistant"]),
    ],
)
def test_turns_of_one_second_are_confused_as_recorded(
    timed: Caller, version: str, names: tuple[str, str], expected: list[str]
) -> None:
    replay = Replay(timed, version)
    theirs = [recorded_turn(named(FOLDERS[version], name)) for name in names]
    assert began(theirs[0]) == began(theirs[1])
    for name in names:
        replay.ask(named(FOLDERS[version], name))
    second = replay.turns[1]
    assert second.sent[0] == ("user", second.query)
    assert [role for role, _ in second.sent] == [role for role, _ in theirs[1].sent] == expected


PARALLEL = [("user", "SAY<<one>>"), ("assistant", "one"), ("user", "SLOW:6:0.5"), ("assistant", "")]
"""What a question was sent that was asked while another one was answered; its echo is recorded by its hash alone."""


@pytest.mark.parametrize("version", ALL)
def test_a_question_beside_another_sees_it_unanswered(timed: Caller, clock: Clock, version: str) -> None:
    folder = FOLDERS[version]
    before, after = named(folder, "sameconv-0"), named(folder, "sameconv-after")
    theirs = recorded_turn(after)
    question = "parallel question"
    messages = json.dumps([*PARALLEL, ("user", question)], separators=(",", ":"))
    echo = f'ECHO {{"model":"gpt-4o","params":{{}},"stop":null,"tools":[],"messages":{messages}}}'
    assert f"<{len(echo)} chars sha {hashlib.sha1(echo.encode()).hexdigest()[:8]}>" in theirs.said

    replay = Replay(timed, version)
    clock.now += 1
    replay.ask(before)
    apart = version != "1.16"  # there the first two began in one second
    clock.now += apart
    slow = {**before.asked, "query": "SLOW:6x300"}
    beside = {**before.asked, "query": question}
    slow["conversation_id"] = beside["conversation_id"] = replay.conversation_id
    headers = timed.headers(f"demo-chat@{version}")
    with timed.http.stream("POST", f"{timed.server.url}/chat-messages", headers=headers, json=slow) as response:
        chunks = response.iter_raw()
        received = next(chunks)
        clock.now += 1
        replay.ask_body("demo-chat", beside)
        assert timed.log.runs[-2].state == "running"
        received += b"".join(chunks)
    replay.turns.insert(1, Turn("SLOW:6x300", read_events(received), []))
    sent = [(role, text.replace("SLOW:6x300", "SLOW:6:0.5")) for role, text in replay.turns[2].sent]
    assert sent == PARALLEL if apart else sorted(sent) == sorted(PARALLEL)

    clock.now += 1
    replay.ask(after)
    said = ["one", "tick 1 tick 2 tick 3 tick 4 tick 5 tick 6 ", echo, ""]
    asked = ["SAY<<one>>", "SLOW:6:0.5", question, "after"]
    turns = [Turn(query, [{"event": "message", "answer": text}], []) for query, text in zip(asked, said, strict=True)]
    assert shape(replay.turns[-1].sent, replay.turns) == shape(theirs.sent, turns)


@pytest.mark.parametrize("version", ALL)
def test_a_model_node_shows_the_turns_it_is_sent_or_none(timed: Caller, clock: Clock, version: str) -> None:
    """A node's prompts tell whether it remembers; a first turn of other nodes shows them without memory."""
    recorded = process_data(named(FOLDERS[version], "hist-flow-stop-2").events())
    for app, roles in (
        ("demo-advanced-chat", [prompt["role"] for prompt in recorded["prompts"]]),
        ("demo-advanced-chat-forgetful", roles_of(named(FOLDERS[version], "chatflow-multi-answer"))),
    ):
        replay = Replay(timed, version)
        for question in ("one", "two"):
            clock.now += 1
            replay.ask_body(app, {"inputs": {}, "query": question, "user": "u1", "response_mode": "streaming"})
        shown = process_data(replay.turns[1].events)
        assert list(shown) == list(recorded)
        assert [list(prompt) for prompt in shown["prompts"]] == [["role", "text", "files"]] * len(shown["prompts"])
        assert [prompt["role"] for prompt in shown["prompts"]] == roles
        assert [(prompt["role"], prompt["text"]) for prompt in shown["prompts"][1:-1]] == replay.turns[1].sent
        assert shown["prompts"][-1]["text"] == "two"


def process_data(events: list[Json]) -> Json:
    """What the last model node tells of its work."""
    ends = [event["data"] for event in events if event["event"] == "node_finished"]
    found: list[Json] = [data["process_data"] for data in ends if data["node_type"] == "llm"]
    return found[-1]


def roles_of(recorded: Recording) -> list[str]:
    return [prompt["role"] for prompt in process_data(recorded.events())["prompts"]]


def test_the_demo_recites_what_it_was_sent(timed: Caller, clock: Clock) -> None:
    replay = Replay(timed, "1.16")
    body: Json = {"inputs": {}, "user": "u1", "response_mode": "streaming"}
    assert replay.ask_body("demo-chat", {**body, "query": "RECALL"}).said == "I remember no earlier messages."
    clock.now += 1
    replay.ask_body("demo-chat", {**body, "query": "two\nlines SAY<<“é”>>"})
    clock.now += 1
    said = replay.ask_body("demo-chat", {**body, "query": "RECALL"}).said
    expected = [
        ("user", "RECALL"),
        ("assistant", "I remember no earlier messages."),
        ("user", "two\nlines SAY<<“é”>>"),
        ("assistant", "“é”"),
    ]
    assert [tuple(json.loads(line)) for line in said.split("\n")] == expected == replay.turns[-1].sent
