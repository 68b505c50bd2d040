"""Conversations of the demo are listed, renamed, deleted and not found as on real Dify servers."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest

from demo.tests.conftest import Caller, Clock
from demo.tests.conversation_replay import ALL, APPS, FOLDERS, Ending, Replay, run_turn
from demo.tests.recorded import fields, order, read_events
from demo.tests.test_memory_against_recordings import CONVERSATIONS
from openai_dify_proxy_demo import DemoServer
from tests.recordings.archive import Recording, named, recordings

NOT_FOUND: list[tuple[str, str, tuple[str, ...]]] = [
    # recording, kind of conversation in the request, versions
    ("err-chat-conv-404", "unknown", ALL),
    ("err-chat-conv-404-blocking", "unknown", ALL),
    ("chat-conv-other-user", "of another user", ALL),
    ("chatflow-conv-404", "unknown", ALL),
    ("chatflow-conv-other-user", "of another user", ALL),
    ("chatflow-conv-other-app", "of another app", ALL),
    ("conv-use-after-delete", "deleted", ALL),
    ("newagent-conv-other-user", "of another user", ("1.16",)),
    ("newagent-conv-use-after-delete", "deleted", ("1.16",)),
    ("list-messages-otheruser", "of another user", ALL),
]


@pytest.mark.parametrize(
    ("name", "kind", "version"),
    [(name, kind, version) for name, kind, versions in NOT_FOUND for version in versions],
)
def test_unknown_conversation_fails_as_recorded(timed: Caller, name: str, kind: str, version: str) -> None:
    recorded = named(FOLDERS[version], name)
    app = f"{APPS[recorded.request['app']]}@{version}"
    conversation_id = "11111111-1111-4111-8111-111111111111"
    if kind != "unknown":
        conversation_id = begin(timed, f"demo-advanced-chat@{version}" if kind == "of another app" else app)
    if kind == "deleted":
        delete(timed, app, conversation_id)
    if recorded.request["method"] == "GET":
        answer = timed.get("/messages", app, user="u2", conversation_id=conversation_id)
    else:
        answer = timed.post("/chat-messages", app, {**recorded.request_json, "conversation_id": conversation_id})
    assert (answer.status_code, answer.content) == (recorded.status, recorded.body)


def begin(demo: Caller, app: str, question: str = "first", user: str = "u1") -> str:
    """Start a conversation and return its id."""
    demo.ask(app, question, user=user)
    return demo.log.runs[-1].conversation_id


def delete(demo: Caller, app: str, conversation_id: str, user: str = "u1") -> httpx2.Response:
    url = f"{demo.server.url}/conversations/{conversation_id}"
    return demo.http.request("DELETE", url, headers=demo.headers(app), json={"user": user})


@pytest.mark.parametrize("version", ALL)
def test_id_that_is_not_a_uuid_is_rejected_as_recorded(timed: Caller, version: str) -> None:
    recorded = named(FOLDERS[version], "err-chat-conv-not-uuid")
    answer = timed.post("/chat-messages", f"demo-chat@{version}", recorded.request_json)
    ours, theirs = answer.json(), recorded.json()
    assert (answer.status_code, list(ours), ours["code"]) == (recorded.status, list(theirs), theirs["code"])
    assert ours["message"].splitlines()[:3] == theirs["message"].splitlines()[:3]


@pytest.mark.parametrize("version", ALL)
def test_chats_without_an_id_start_a_conversation_and_completions_do_not(timed: Caller, version: str) -> None:
    empty = named(FOLDERS[version], "chat-conv-empty-string")
    answer = timed.post("/chat-messages", f"demo-chat@{version}", empty.request_json)
    assert order(read_events(answer.content)) == order(empty.events())
    assert timed.log.runs[-1].conversation_id
    ignored = named(FOLDERS[version], "completion-conv-id")
    answer = timed.post("/completion-messages", f"demo-completion@{version}", ignored.request_json)
    assert (answer.status_code, list(answer.json())) == (ignored.status, list(ignored.json()))


def test_unrecorded_versions_handle_unknown_conversations_differently(timed: Caller) -> None:
    """1.14 sends only a ping, like 1.13; 1.15 starts a new conversation without notice."""
    unknown = "11111111-1111-4111-8111-111111111111"
    silent = timed.ask("demo-advanced-chat@1.14", "hi", conversation_id=unknown)
    assert (silent.status_code, silent.content) == (200, b"event: ping\n\n")
    assert timed.ask("demo-advanced-chat@1.14", "hi", response_mode="blocking").json()["answer"]
    restarted = read_events(timed.ask("demo-advanced-chat@1.15", "hi", conversation_id=unknown).content)
    assert order(restarted)[-1] == "workflow_finished succeeded"
    assert restarted[-1]["conversation_id"] not in (unknown, "")
    assert timed.ask("demo-chat@1.15", "hi", conversation_id=unknown).status_code == 404


ROWS: list[tuple[str, str, Ending, tuple[str, ...]]] = [
    # recording, message to the demo, how its stream ends, versions
    ("disconnect-chat-then-messages", "SLOW:3x700", "leave", ALL),
    ("disconnect-chatflow-then-messages", "SLOW:3x700", "leave", ALL),
    ("newagent-disconnect-then-messages", "SLOW:3x700", "leave", ("1.16",)),
    ("list-messages", "hello flow", "read", ALL),
    ("list-messages-agent", "TOOL", "read", ALL),
]


@pytest.mark.parametrize(
    ("recorded", "version", "question", "ending"),
    [
        *(
            (named(FOLDERS[version], name), version, question, ending)
            for name, question, ending, those in ROWS
            for version in those
        ),
        (named("dify-1.16.1-main", "newagent-full-askhuman-messages"), "1.16", "PAUSE", "read"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_stored_turn_is_listed_as_recorded(
    timed: Caller, recorded: Recording, version: str, question: str, ending: Ending
) -> None:
    app = f"{APPS[recorded.request['app']]}@{version}"
    run_turn(timed, app, timed.body(app, question), ending)
    run = timed.log.runs[-1]
    answer = timed.get("/messages", app, user="u1", conversation_id=run.conversation_id).json()
    assert list(answer) == list(recorded.json())
    (row,) = answer["data"]
    theirs = next(row for row in recorded.json()["data"] if "second" not in row["query"])
    assert list(row) == list(theirs)
    assert [bool(row[key]) for key in row if key in OUTCOME_FIELDS] == [
        bool(theirs[key]) for key in theirs if key in OUTCOME_FIELDS
    ]
    assert row["answer"] in ("", run.answer.strip(), run.answer)
    assert (row["status"], row["error"]) == (theirs["status"], theirs["error"])
    assert [list(step) for step in row["agent_thoughts"]] == [list(step) for step in theirs["agent_thoughts"]]
    for ours, recorded_step in zip(row["agent_thoughts"], theirs["agent_thoughts"], strict=True):
        assert [bool(value) for value in ours.values()] == [bool(value) for value in recorded_step.values()]


OUTCOME_FIELDS = ("answer", "agent_thoughts", "answer_tokens", "total_price", "provider_response_latency")
"""Fields of a stored turn whose emptiness depends on how the turn ended."""


@pytest.mark.parametrize(
    ("app", "error"), [("demo-chat", ""), ("demo-advanced-chat", "Run failed: "), ("demo-agent", "")]
)
@pytest.mark.parametrize("word", ["ERROR", "MIDERROR"])
def test_failed_turn_is_stored_without_an_answer(timed: Caller, app: str, error: str, word: str) -> None:
    timed.ask(app, word)
    (row,) = timed.get("/messages", app, user="u1", conversation_id=timed.log.runs[-1].conversation_id).json()["data"]
    assert (row["answer"], row["status"]) == ("", "error")
    assert row["error"] == f"{error}[demo] Bad Request Error, the model refused the request"


def test_new_agent_that_awaits_human_input_fails_the_next_turn(timed: Caller) -> None:
    recorded = named("dify-1.16.1-main", "newagent-full-askhuman-next").events()
    conversation_id = begin(timed, "demo-agent", "PAUSE")
    events = read_events(timed.ask("demo-agent", "SAY<<next turn>>", conversation_id=conversation_id).content)
    assert (order(events), fields(events)) == (order(recorded), fields(recorded))
    assert recorded[0]["message"].startswith(events[0]["message"])


@pytest.mark.parametrize("version", ALL)
def test_conversation_is_renamed_and_deleted_as_recorded(timed: Caller, clock: Clock, version: str) -> None:
    app = f"demo-advanced-chat@{version}"
    conversation_id = begin(timed, app)
    started = int(clock.now)
    clock.now += 20
    for name in ("conv-rename", "conv-autoname"):
        recorded = named(FOLDERS[version], name)
        answer = timed.post(f"/conversations/{conversation_id}/name", app, recorded.request_json)
        ours, theirs = answer.json(), recorded.json()
        assert (answer.status_code, list(ours), ours["status"]) == (recorded.status, list(theirs), theirs["status"])
        assert (ours["id"], ours["created_at"], ours["updated_at"]) == (conversation_id, started, started + 20)
        assert ours["name"] == recorded.request_json.get("name", "About: first")
    variables = named(FOLDERS[version], "conv-variables")
    answer = timed.get(f"/conversations/{conversation_id}/variables", app, user="u1")
    assert (answer.status_code, answer.content) == (variables.status, variables.body)

    for name in ("conv-delete", *(["newagent-conv-delete"] if version == "1.16" else [])):
        deleted = named(FOLDERS[version], name)
        app = f"{APPS[deleted.request['app']]}@{version}"
        answer = delete(timed, app, begin(timed, app))
        assert (answer.status_code, answer.content) == (deleted.status, deleted.body)
        assert set(answer.headers) - {"date", "vary"} == set(deleted.headers) - {"date", "vary"}


@pytest.mark.parametrize(("version", "status"), [("0.15", 404), ("1.11", 204), ("1.13", 204), ("1.16", 204)])
def test_deleting_checks_the_user_only_before_1_0(timed: Caller, version: str, status: int) -> None:
    """Since 1.0 Dify's source does not check the user of the conversation."""
    app = f"demo-chat@{version}"
    conversation_id = begin(timed, app)
    assert delete(timed, app, conversation_id, user="u2").status_code == status
    there = timed.get("/messages", app, user="u1", conversation_id=conversation_id).status_code
    assert there == (200 if status == 404 else 404)
    own = delete(timed, "demo-chat@0.15", begin(timed, "demo-chat@0.15"))
    assert (own.status_code, own.json()) == (200, {"result": "success"})


@pytest.mark.parametrize("version", ALL)
def test_conversations_are_listed_as_recorded(timed: Caller, clock: Clock, version: str) -> None:
    user = f"lister {version}"
    ids = {}
    listings = [("chatflow", "list-conversations"), ("agent-new", "newagent-list-conversations")]
    for kind, name in listings[: 2 if version == "1.16" else 1]:
        app = f"{APPS[kind]}@{version}"
        for question in ("one", "two", "three"):
            clock.now += 1
            ids[question] = begin(timed, app, question, user)
        recorded = named(FOLDERS[version], name).json()
        page = timed.get("/conversations", app, user=user, limit="2").json()
        assert list(page) == list(recorded)
        assert (page["limit"], page["has_more"]) == (recorded["limit"], recorded["has_more"]) == (2, True)
        assert [list(row) for row in page["data"]] == [list(row) for row in recorded["data"]]
        assert [row["name"] for row in page["data"]] == ["three", "two"]
        clock.now += 1
        timed.ask(app, "again", user=user, conversation_id=ids["one"])
        rest = timed.get("/conversations", app, user=user, last_id=ids["three"]).json()
        assert ([row["id"] for row in rest["data"]], rest["has_more"]) == ([ids["two"]], False)
    refused = named(FOLDERS[version], "list-conversations-workflow")
    answer = timed.get("/conversations", f"demo-workflow@{version}", user="u1")
    assert (answer.status_code, answer.content) == (refused.status, refused.body)
    assert timed.get("/conversations", f"demo-chat@{version}", user=user, last_id=ids["one"]).status_code == 404


def test_messages_are_listed_page_by_page(timed: Caller, clock: Clock) -> None:
    """The newest page comes first, oldest turn first; turns of the same second are reversed."""
    replay = Replay(timed, "1.16")
    for question in ("one", "two", "three", "four"):
        clock.now += question != "two"
        replay.ask_body("demo-chat", {"inputs": {}, "query": question, "user": "u1", "response_mode": "streaming"})
    newest = pages(timed, replay, limit="2")
    assert newest[0] == ["three", "four"]
    assert newest[1:] == [True, 2]
    first_id = timed.get("/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, limit="2").json()
    older = pages(timed, replay, first_id=first_id["data"][0]["id"])
    assert older == [["two", "one"], False, 20]
    for wrong in ({"limit": "0"}, {"limit": "101"}, {"limit": "many"}):
        answer = timed.get("/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, **wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_param")
    unknown = timed.get(
        "/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, first_id=replay.conversation_id
    )
    assert (unknown.status_code, unknown.json()["message"]) == (404, "First Message Not Exists.")


def pages(demo: Caller, replay: Replay, **params: str) -> list[Any]:
    page = demo.get("/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, **params).json()
    return [[row["query"] for row in page["data"]], page["has_more"], page["limit"]]


COVERED = {
    *(name for conversation in CONVERSATIONS for name in conversation.names),
    *(name for name, _, _ in NOT_FOUND),
    *("sameconv-0", "sameconv-after", "err-chat-conv-not-uuid", "chat-conv-empty-string", "completion-conv-id"),
    *("conv-rename", "conv-autoname", "conv-variables", "conv-delete", "newagent-conv-delete"),
}
"""The recordings that this module and the tests of memory replay."""


@pytest.mark.parametrize("version", ALL)
def test_every_recorded_conversation_is_replayed(version: str) -> None:
    family = re.compile(r"(^|-)(hist|conv|sameconv)-")
    covered = {name for name in COVERED if version == "1.16" or not name.startswith("newagent-")}
    on_disk = {recording.name for recording in recordings(FOLDERS[version])}
    assert set(filter(family.search, on_disk)) == set(filter(family.search, covered))


def test_default_clock_is_the_system_clock(http: httpx2.Client) -> None:
    with DemoServer() as server:
        before = int(time.time())
        events = read_events(Caller(server, http).ask("demo-chat", "now").content)
        assert before <= events[0]["created_at"] <= time.time()
