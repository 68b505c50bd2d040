"""The demo's model receives the same earlier messages as the model behind real Dify servers.

The tests replay recorded turns in their order, with their timestamps. The recorded model reports what it
received by its `ECHO`, or only by the number of prompt tokens.
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
    Ending,
    Json,
    Replay,
    Turn,
    count_tokens,
    prompt_tokens,
    recorded_turn,
    shape,
    start_second,
    texts_of,
)
from demo.tests.recorded import fields, order, read_events
from tests.recordings.archive import Recording, named


@dataclass(frozen=True)
class RecordedConversation:
    """The recorded turns of one conversation, and how the stream of the first one ended."""

    names: tuple[str, ...]
    first: Ending = "read"
    versions: tuple[str, ...] = ALL
    before: str = ""
    """A message that precedes the recorded ones."""

    def __str__(self) -> str:
        return self.names[0]


def numbered(name: str, last: int, first: Ending = "read") -> RecordedConversation:
    return RecordedConversation(tuple(f"{name}-{number}" for number in range(1, last + 1)), first)


CONVERSATIONS = (
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
    RecordedConversation(("chat-inputs-1", "chat-inputs-2-changed")),
    RecordedConversation(("agent-stream-tool", "agent-stream-turn2")),
    RecordedConversation(("newagent-stream-plain", "newagent-stream-turn2"), versions=("1.16",)),
    RecordedConversation(("newagent-disconnect", "newagent-disconnect-then-turn"), "leave", versions=("1.16",)),
    RecordedConversation(("newagent-hist-preerror-2",), versions=("1.16",), before="ERROR:bad"),
)

CORRECTLY_ORDERED = {
    *((version, "hist-samesecond-2") for version in ALL),
    ("1.11", "hist-tiny-3"),
    ("1.11", "hist-tiny-5"),
    ("1.13", "hist-tiny-6"),
    ("1.16", "chat-block-2"),
    ("1.16", "chatflow-llm-stream-2"),
}
"""Turns that Dify ordered correctly although they started in the same second as another one.

They are replayed one second later.
"""

COMPARED_BY_TOKENS = ("chat-plain", "chat-tiny-context")
"""Apps whose model receives only the conversation, so token counts are comparable."""


@pytest.mark.parametrize(
    ("conversation", "version"),
    [(conversation, version) for conversation in CONVERSATIONS for version in conversation.versions],
    ids=str,
)
def test_conversation_continues_as_recorded(
    timed: Caller, clock: Clock, conversation: RecordedConversation, version: str
) -> None:
    replay, theirs, second = Replay(timed, version), [], 0
    if conversation.before:
        replay.ask_body(
            "demo-agent", {"inputs": {}, "query": conversation.before, "user": "h", "response_mode": "streaming"}
        )
        theirs.append(Turn(conversation.before, [], []))
    for place, name in enumerate(conversation.names):
        recorded = named(FOLDERS[version], name)
        theirs.append(recorded_turn(recorded))
        clock.now += ((version, name) in CORRECTLY_ORDERED) or second != start_second(theirs[-1])
        second = start_second(theirs[-1])
        ending = conversation.first if place == 0 else "read"
        ours = replay.ask(recorded, ending)
        compare_events(ours, theirs[-1], ending)
        compare_memory(replay.turns, theirs, by_tokens=recorded.request["app"] in COMPARED_BY_TOKENS)


def compare_events(ours: Turn, theirs: Turn, ending: Ending) -> None:
    if ending == "leave":
        assert order(theirs.events)[: len(order(ours.events))] == order(ours.events)
    else:
        assert order(ours.events) == order(theirs.events)
        assert fields(ours.events) == fields(theirs.events)


def compare_memory(ours: list[Turn], theirs: list[Turn], *, by_tokens: bool) -> None:
    found = shape(ours[-1].sent, ours)
    if theirs[-1].answer.startswith("ECHO"):
        assert found == shape(theirs[-1].sent, theirs)
    if by_tokens and (prompt := prompt_tokens(theirs[-1])):
        assert count_tokens([*texts_of(found, theirs), theirs[-1].query]) == prompt


@pytest.mark.parametrize(
    ("version", "names", "expected"),
    [
        # The question is sent twice, once before the older turn; a chatflow omits the empty answer.
        ("1.16", ("chat-inputs-1", "chat-inputs-2-changed"), ["user", "assistant", "user", "assistant"]),
        ("1.13", ("chatflow-llm-stream-1", "chatflow-llm-stream-2"), ["user", "user", "assistant"]),
        # The older turn failed. Its row comes first and has no answer, so Dify mistakes it for the current turn.
        ("1.13", ("hist-chat-after-preerror-1", "hist-chat-after-preerror-2"), ["user", "assistant"]),
    ],
)
def test_turns_of_one_second_are_misordered_as_recorded(
    timed: Caller, version: str, names: tuple[str, str], expected: list[str]
) -> None:
    replay = Replay(timed, version)
    theirs = [recorded_turn(named(FOLDERS[version], name)) for name in names]
    assert start_second(theirs[0]) == start_second(theirs[1])
    for name in names:
        replay.ask(named(FOLDERS[version], name))
    second = replay.turns[1]
    assert second.sent[0] == ("user", second.query)
    assert [role for role, _ in second.sent] == [role for role, _ in theirs[1].sent] == expected


PARALLEL = [("user", "SAY<<one>>"), ("assistant", "one"), ("user", "SLOW:6:0.5"), ("assistant", "")]
"""The messages that a concurrent question received; the recording contains only the hash of its echo."""


@pytest.mark.parametrize("version", ALL)
def test_concurrent_question_sees_the_other_unanswered(timed: Caller, clock: Clock, version: str) -> None:
    folder = FOLDERS[version]
    before, after = named(folder, "sameconv-0"), named(folder, "sameconv-after")
    theirs = recorded_turn(after)
    question = "parallel question"
    messages = json.dumps([*PARALLEL, ("user", question)], separators=(",", ":"))
    echo = f'ECHO {{"model":"gpt-4o","params":{{}},"stop":null,"tools":[],"messages":{messages}}}'
    assert f"<{len(echo)} chars sha {hashlib.sha1(echo.encode()).hexdigest()[:8]}>" in theirs.answer

    replay = Replay(timed, version)
    clock.now += 1
    replay.ask(before)
    separate = version != "1.16"  # there the first two started in the same second
    clock.now += separate
    slow = {**before.request_json, "query": "SLOW:6x300"}
    beside = {**before.request_json, "query": question}
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
    assert sent == PARALLEL if separate else sorted(sent) == sorted(PARALLEL)

    clock.now += 1
    replay.ask(after)
    answers = ["one", "tick 1 tick 2 tick 3 tick 4 tick 5 tick 6 ", echo, ""]
    queries = ["SAY<<one>>", "SLOW:6:0.5", question, "after"]
    turns = [
        Turn(query, [{"event": "message", "answer": text}], []) for query, text in zip(queries, answers, strict=True)
    ]
    assert shape(replay.turns[-1].sent, replay.turns) == shape(theirs.sent, turns)


@pytest.mark.parametrize("version", ALL)
def test_prompts_of_a_model_node_show_its_memory(timed: Caller, clock: Clock, version: str) -> None:
    """The prompts of a node include earlier turns only if its memory is on."""
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
    """Return the `process_data` of the last model node."""
    ends = [event["data"] for event in events if event["event"] == "node_finished"]
    found: list[Json] = [data["process_data"] for data in ends if data["node_type"] == "llm"]
    return found[-1]


def roles_of(recorded: Recording) -> list[str]:
    return [prompt["role"] for prompt in process_data(recorded.events())["prompts"]]


def test_recall_lists_the_messages_that_the_model_received(timed: Caller, clock: Clock) -> None:
    replay = Replay(timed, "1.16")
    body: Json = {"inputs": {}, "user": "u1", "response_mode": "streaming"}
    assert replay.ask_body("demo-chat", {**body, "query": "RECALL"}).answer == "I remember no earlier messages."
    clock.now += 1
    replay.ask_body("demo-chat", {**body, "query": "two\nlines SAY<<“é”>>"})
    clock.now += 1
    answer = replay.ask_body("demo-chat", {**body, "query": "RECALL"}).answer
    expected = [
        ("user", "RECALL"),
        ("assistant", "I remember no earlier messages."),
        ("user", "two\nlines SAY<<“é”>>"),
        ("assistant", "“é”"),
    ]
    assert [tuple(json.loads(line)) for line in answer.split("\n")] == expected == replay.turns[-1].sent
