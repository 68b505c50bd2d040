"""In the demo conversations are missed, listed, named and deleted as in a real Dify, and store the same."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest

from demo.tests.conftest import Caller, Clock
from demo.tests.conversation_replay import ALL, APPS, FOLDERS, How, Replay, play
from demo.tests.recorded import fields, order, read_events
from demo.tests.test_memory_against_recordings import THREADS
from openai_dify_proxy_demo import DemoServer
from tests.recordings.archive import Recording, named, recordings

REFUSALS: list[tuple[str, str, tuple[str, ...]]] = [
    # recording, whose conversation it names, versions
    ("err-chat-conv-404", "nobody's", ALL),
    ("err-chat-conv-404-blocking", "nobody's", ALL),
    ("chat-conv-other-user", "another user's", ALL),
    ("chatflow-conv-404", "nobody's", ALL),
    ("chatflow-conv-other-user", "another user's", ALL),
    ("chatflow-conv-other-app", "another app's", ALL),
    ("conv-use-after-delete", "a deleted one", ALL),
    ("newagent-conv-other-user", "another user's", ("1.16",)),
    ("newagent-conv-use-after-delete", "a deleted one", ("1.16",)),
    ("list-messages-otheruser", "another user's", ALL),
]


@pytest.mark.parametrize(
    ("name", "whose", "version"),
    [(name, whose, version) for name, whose, versions in REFUSALS for version in versions],
)
def test_a_conversation_that_is_not_there_is_missed_as_recorded(
    timed: Caller, name: str, whose: str, version: str
) -> None:
    recorded = named(FOLDERS[version], name)
    app = f"{APPS[recorded.request['app']]}@{version}"
    conversation_id = "11111111-1111-4111-8111-111111111111"
    if whose != "nobody's":
        conversation_id = begin(timed, f"demo-advanced-chat@{version}" if whose == "another app's" else app)
    if whose == "a deleted one":
        delete(timed, app, conversation_id)
    if recorded.request["method"] == "GET":
        answer = timed.get("/messages", app, user="u2", conversation_id=conversation_id)
    else:
        answer = timed.post("/chat-messages", app, {**recorded.asked, "conversation_id": conversation_id})
    assert (answer.status_code, answer.content) == (recorded.status, recorded.body)


def begin(demo: Caller, app: str, question: str = "first", user: str = "u1") -> str:
    """Ask a first question and return the conversation's id."""
    demo.ask(app, question, user=user)
    return demo.log.runs[-1].conversation_id


def delete(demo: Caller, app: str, conversation_id: str, user: str = "u1") -> httpx2.Response:
    url = f"{demo.server.url}/conversations/{conversation_id}"
    return demo.http.request("DELETE", url, headers=demo.headers(app), json={"user": user})


@pytest.mark.parametrize("version", ALL)
def test_an_id_that_is_no_uuid_is_refused_as_recorded(timed: Caller, version: str) -> None:
    recorded = named(FOLDERS[version], "err-chat-conv-not-uuid")
    answer = timed.post("/chat-messages", f"demo-chat@{version}", recorded.asked)
    ours, theirs = answer.json(), recorded.json()
    assert (answer.status_code, list(ours), ours["code"]) == (recorded.status, list(theirs), theirs["code"])
    assert ours["message"].splitlines()[:3] == theirs["message"].splitlines()[:3]


@pytest.mark.parametrize("version", ALL)
def test_no_id_begins_a_conversation_and_completions_have_none(timed: Caller, version: str) -> None:
    empty = named(FOLDERS[version], "chat-conv-empty-string")
    answer = timed.post("/chat-messages", f"demo-chat@{version}", empty.asked)
    assert order(read_events(answer.content)) == order(empty.events())
    assert timed.log.runs[-1].conversation_id
    ignored = named(FOLDERS[version], "completion-conv-id")
    answer = timed.post("/completion-messages", f"demo-completion@{version}", ignored.asked)
    assert (answer.status_code, list(answer.json())) == (ignored.status, list(ignored.json()))


def test_the_versions_that_nobody_recorded_lose_conversations_in_their_own_ways(timed: Caller) -> None:
    """1.14 says nothing, as 1.13; 1.15 begins another one, and does not tell."""
    lost = "11111111-1111-4111-8111-111111111111"
    silent = timed.ask("demo-advanced-chat@1.14", "hi", conversation_id=lost)
    assert (silent.status_code, silent.content) == (200, b"event: ping\n\n")
    assert timed.ask("demo-advanced-chat@1.14", "hi", response_mode="blocking").json()["answer"]
    anew = read_events(timed.ask("demo-advanced-chat@1.15", "hi", conversation_id=lost).content)
    assert order(anew)[-1] == "workflow_finished succeeded"
    assert anew[-1]["conversation_id"] not in (lost, "")
    assert timed.ask("demo-chat@1.15", "hi", conversation_id=lost).status_code == 404


ROWS: list[tuple[str, str, How, tuple[str, ...]]] = [
    # recording, question of the demo, what is done to its stream, versions
    ("disconnect-chat-then-messages", "SLOW:3x700", "leave", ALL),
    ("disconnect-chatflow-then-messages", "SLOW:3x700", "leave", ALL),
    ("newagent-disconnect-then-messages", "SLOW:3x700", "leave", ("1.16",)),
    ("list-messages", "hello flow", "read", ALL),
    ("list-messages-agent", "TOOL", "read", ALL),
]


@pytest.mark.parametrize(
    ("recorded", "version", "question", "how"),
    [
        *(
            (named(FOLDERS[version], name), version, asked, how)
            for name, asked, how, those in ROWS
            for version in those
        ),
        (named("dify-1.16.1-main", "newagent-full-askhuman-messages"), "1.16", "PAUSE", "read"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_stored_turn_is_told_as_recorded(
    timed: Caller, recorded: Recording, version: str, question: str, how: How
) -> None:
    app = f"{APPS[recorded.request['app']]}@{version}"
    play(timed, app, timed.body(app, question), how)
    run = timed.log.runs[-1]
    answer = timed.get("/messages", app, user="u1", conversation_id=run.conversation_id).json()
    assert list(answer) == list(recorded.json())
    (row,) = answer["data"]
    theirs = next(row for row in recorded.json()["data"] if "second" not in row["query"])
    assert list(row) == list(theirs)
    assert [bool(row[key]) for key in row if key in TOLD] == [bool(theirs[key]) for key in theirs if key in TOLD]
    assert row["answer"] in ("", run.answer.strip(), run.answer)
    assert (row["status"], row["error"]) == (theirs["status"], theirs["error"])
    assert [list(step) for step in row["agent_thoughts"]] == [list(step) for step in theirs["agent_thoughts"]]
    for ours, recorded_step in zip(row["agent_thoughts"], theirs["agent_thoughts"], strict=True):
        assert [bool(value) for value in ours.values()] == [bool(value) for value in recorded_step.values()]


TOLD = ("answer", "agent_thoughts", "answer_tokens", "total_price", "provider_response_latency")
"""Fields of a stored turn that are empty or not as the turn ended; a price of nothing is written out."""


@pytest.mark.parametrize(
    ("app", "error"), [("demo-chat", ""), ("demo-advanced-chat", "Run failed: "), ("demo-agent", "")]
)
@pytest.mark.parametrize("word", ["ERROR", "MIDERROR"])
def test_a_failed_turn_is_stored_without_its_words(timed: Caller, app: str, error: str, word: str) -> None:
    timed.ask(app, word)
    (row,) = timed.get("/messages", app, user="u1", conversation_id=timed.log.runs[-1].conversation_id).json()["data"]
    assert (row["answer"], row["status"]) == ("", "error")
    assert row["error"] == f"{error}[demo] Bad Request Error, the model refused the request"


def test_a_new_agent_that_asked_takes_no_other_question(timed: Caller) -> None:
    recorded = named("dify-1.16.1-main", "newagent-full-askhuman-next").events()
    conversation_id = begin(timed, "demo-agent", "PAUSE")
    events = read_events(timed.ask("demo-agent", "SAY<<next turn>>", conversation_id=conversation_id).content)
    assert (order(events), fields(events)) == (order(recorded), fields(recorded))
    assert recorded[0]["message"].startswith(events[0]["message"])


@pytest.mark.parametrize("version", ALL)
def test_a_conversation_is_named_and_deleted_as_recorded(timed: Caller, clock: Clock, version: str) -> None:
    app = f"demo-advanced-chat@{version}"
    conversation_id = begin(timed, app)
    begun = int(clock.now)
    clock.now += 20
    for name in ("conv-rename", "conv-autoname"):
        recorded = named(FOLDERS[version], name)
        answer = timed.post(f"/conversations/{conversation_id}/name", app, recorded.asked)
        ours, theirs = answer.json(), recorded.json()
        assert (answer.status_code, list(ours), ours["status"]) == (recorded.status, list(theirs), theirs["status"])
        assert (ours["id"], ours["created_at"], ours["updated_at"]) == (conversation_id, begun, begun + 20)
        assert ours["name"] == recorded.asked.get("name", "About: first")
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
def test_who_may_delete(timed: Caller, version: str, status: int) -> None:
    """Since 1.0 Dify's source does not ask whose conversation it is."""
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
    """The newest page comes first, its oldest turn first; the turns of one second are turned round."""
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
    nobody = timed.get(
        "/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, first_id=replay.conversation_id
    )
    assert (nobody.status_code, nobody.json()["message"]) == (404, "First Message Not Exists.")


def pages(demo: Caller, replay: Replay, **params: str) -> list[Any]:
    page = demo.get("/messages", "demo-chat", user="u1", conversation_id=replay.conversation_id, **params).json()
    return [[row["query"] for row in page["data"]], page["has_more"], page["limit"]]


COVERED = {
    *(name for thread in THREADS for name in thread.names),
    *(name for name, _, _ in REFUSALS),
    *("sameconv-0", "sameconv-after", "err-chat-conv-not-uuid", "chat-conv-empty-string", "completion-conv-id"),
    *("conv-rename", "conv-autoname", "conv-variables", "conv-delete", "newagent-conv-delete"),
}
"""The recordings that are replayed here and among the tests of memory."""


@pytest.mark.parametrize("version", ALL)
def test_every_recorded_conversation_is_replayed(version: str) -> None:
    family = re.compile(r"(^|-)(hist|conv|sameconv)-")
    covered = {name for name in COVERED if version == "1.16" or not name.startswith("newagent-")}
    on_disk = {recording.name for recording in recordings(FOLDERS[version])}
    assert set(filter(family.search, on_disk)) == set(filter(family.search, covered))


def test_the_clock_is_the_real_one_unless_another_is_given(http: httpx2.Client) -> None:
    with DemoServer() as server:
        before = int(time.time())
        events = read_events(Caller(server, http).ask("demo-chat", "now").content)
        assert before <= events[0]["created_at"] <= time.time()
