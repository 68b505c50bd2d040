"""Keywords, memory, versions and the log of the scripted Dify."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import pytest

from demo.tests.conftest import Caller
from demo.tests.recorded import order, read_events
from demo.tests.test_against_recordings import ask_and_stop
from openai_dify_proxy_demo import DEMO_APPS, DemoServer, Timing

NAMES = [app.name for app in DEMO_APPS]
CHATS = ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent"]
VERSIONS = ["0.15", "1.11", "1.13", "1.16"]


def answer_in(events: list[dict[str, Any]]) -> str:
    """Return the text of a stream, without the last message of a New Agent, which repeats it."""
    agent = any(event["event"] == "agent_message" for event in events)
    texts = [event for event in events if not (agent and event["event"] == "message")]
    return "".join(event.get("answer") or event.get("data", {}).get("text", "") for event in texts)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_say_answers_with_exactly_this_text(demo: Caller, name: str, version: str) -> None:
    text = ' Line one\n\ttwo, 三\u2028four 👋🏽 \\u "quoted" '
    assert answer_in(read_events(demo.ask(f"{name}@{version}", f"SAY<<{text}>>").content)) == text


@pytest.mark.parametrize("name", NAMES)
def test_default_answer_names_the_app_and_repeats_the_message(demo: Caller, name: str) -> None:
    answer = answer_in(read_events(demo.ask(name, "Where is the sea?").content))
    assert answer.startswith(f"Hello from the demo {demo.mode(name)} app, which repeats your message.")
    assert answer.endswith(" You wrote: “Where is the sea?”")


def test_answers_have_the_requested_length_and_scripts(demo: Caller) -> None:
    assert len(answer_in(read_events(demo.ask("demo-chat", "LONG:20000").content))) == 20000
    assert answer_in(read_events(demo.ask("demo-chat", "EMPTY").content)) == ""
    raw = demo.ask("demo-chat", "CJK").content
    assert "你好".encode() in raw
    assert "\u2028".encode() in raw, "newer versions leave line separators raw"
    assert b"\\u2028" in demo.ask("demo-chat@0.15", "CJK").content
    assert b'data: {"event": "message"' in demo.ask("demo-chat@0.15", "CJK").content


@pytest.mark.parametrize("name", CHATS)
def test_a_conversation_is_remembered_for_its_user_only(demo: Caller, name: str) -> None:
    first = read_events(demo.ask(name, "one").content)
    conversation_id = next(event["conversation_id"] for event in first if "conversation_id" in event)
    second = answer_in(read_events(demo.ask(name, "two", conversation_id=conversation_id).content))
    assert " I remember 2 earlier messages from our conversation. " in second
    stranger = demo.ask(name, "three", conversation_id=conversation_id, user="u2")
    assert (stranger.status_code, stranger.json()["code"]) == (404, "not_found")
    deleted = demo.http.request(
        "DELETE",
        f"{demo.server.url}/conversations/{conversation_id}",
        headers=demo.headers(name),
        json={"user": "u1"},
    )
    assert deleted.status_code == 204
    assert demo.ask(name, "four", conversation_id=conversation_id).status_code == 404


def test_inputs_are_checked_and_shown(demo: Caller) -> None:
    form = demo.get("/parameters", "demo-workflow-form").json()["user_input_form"]
    assert [next(iter(item)) for item in form] == ["text-input", "text-input", "select", "number"]
    inputs = {"question": "why", "language": "en", "words": 3}
    answer = answer_in(read_events(demo.ask("demo-workflow-form", "", inputs=inputs).content))
    assert answer.endswith(" Inputs: language = en, words = 3. You wrote: “why”")
    for wrong, problem in (
        ({"language": "xx"}, "language in input form must be one of the following: ['en', 'de', 'fr']"),
        ({"words": "many"}, "words in input form must be a valid number"),
        ({"question": 5}, "(type 'text-input') question in input form must be a string"),
        ({"subject": "s" * 49}, "subject in input form must be less than 48 characters"),
    ):
        refused = demo.ask("demo-workflow-form", "", inputs={**inputs, **wrong}, response_mode="blocking")
        assert (refused.status_code, refused.json()["message"]) == (400, problem)


def test_workflows_have_their_outputs(demo: Caller) -> None:
    events = read_events(demo.ask("demo-workflow-outputs", "SAY<<four>>").content)
    assert events[-1]["data"]["outputs"] == {"answer": "four", "keywords": ["demo", "echo"], "length": 4}
    assert answer_in(events) == "four\n- demo\n- echo\n4"
    quiet = read_events(demo.ask("demo-workflow-quiet", "SAY<<four>>").content)
    assert (answer_in(quiet), quiet[-1]["data"]["outputs"]) == ("", {"result": "four"})


def test_moderation_replaces_the_answer(demo: Caller) -> None:
    events: list[dict[str, Any]] = []
    for name in ("demo-chat", "demo-completion", "demo-advanced-chat"):
        events = read_events(demo.ask(name, "MODERATE SAY<<secret>>").content)
        replaced = next(event for event in events if event["event"] == "message_replace")
        assert (replaced["answer"], replaced["reason"]) == ("This answer was withheld.", "output_moderation")
    assert events[-1]["data"]["outputs"]["answer"] == "secret"


def test_annotation_hit_is_a_success_followed_by_a_failure(demo: Caller) -> None:
    events = read_events(demo.ask("demo-advanced-chat", "ANNOTATION").content)
    assert order(events) == ["ping", "message", "message_end", "workflow_started", "workflow_finished failed"]
    assert events[-1]["data"]["error"] == "Workflow stream ended without a terminal event"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("word", "complete"), [("EOF", True), ("CUT", False)])
def test_stream_can_end_without_a_terminal_event(demo: Caller, name: str, word: str, complete: bool) -> None:
    body = b""
    try:
        with demo.http.stream(
            "POST", demo.server.url + _path(demo, name), headers=demo.headers(name), json=demo.body(name, word)
        ) as response:
            for chunk in response.iter_raw():
                body += chunk
        assert complete
    except httpx2.RemoteProtocolError:
        assert not complete
    names = {event["event"] for event in read_events(body)}
    assert names & {"message", "agent_message", "text_chunk"}
    assert not names & {"message_end", "workflow_finished", "error"}


@pytest.mark.parametrize(
    ("word", "found"), [("GARBAGE", b'"answer": \n\n'), ("BADUTF8", b"\xff\xfe"), ("OVERSIZE:70000", b"x" * 70000)]
)
@pytest.mark.parametrize("name", NAMES)
def test_invalid_frames_appear_mid_stream(demo: Caller, name: str, word: str, found: bytes) -> None:
    body = demo.ask(name, word).content
    assert body.count(found) >= 1
    assert body.endswith(b"}\n\n")


def _path(demo: Caller, name: str) -> str:
    return {"completion": "/completion-messages", "workflow": "/workflows/run"}.get(demo.mode(name), "/chat-messages")


def test_silent_streams_end_after_the_hang_timeout(brisk: Caller) -> None:
    assert brisk.ask("demo-chat", "SILENCE").content == b""
    assert brisk.ask("demo-workflow", "SILENCE").content == b""
    pings = brisk.ask("demo-chat", "PINGS").content
    assert pings == b"event: ping\n\n" * (len(pings) // 13) != b""
    assert order(read_events(brisk.ask("demo-chat", "MIDSILENCE").content)) == ["message"]
    assert b"ping" not in brisk.ask("demo-chat", "MIDSILENCE").content


@pytest.mark.parametrize(("question", "pings"), [("PINGS", 3), ("SLOW:1x60000", 1)])
def test_idle_streams_send_pings(pinging: Caller, question: str, pings: int) -> None:
    """Headers and pings are sent before the first word, which arrives much later."""
    body = pinging.body("demo-chat", question)
    headers, received = pinging.headers("demo-chat"), b""
    with pinging.http.stream("POST", f"{pinging.server.url}/chat-messages", headers=headers, json=body) as response:
        for chunk in response.iter_raw():
            received += chunk
            if len(received) >= pings * 13:
                break
    assert received == b"event: ping\n\n" * (len(received) // 13)


def test_queue_sends_one_ping_and_then_waits(demo: Caller, brisk: Caller) -> None:
    waiting = read_events(brisk.ask("demo-workflow@1.16", "QUEUE:0.2").content)
    assert [event["event"] for event in waiting[:2]] == ["ping", "workflow_started"]
    started = time.monotonic()
    assert read_events(demo.ask("demo-chat", "HEADERS:0.2").content)[0]["event"] == "message"
    assert time.monotonic() - started >= 0.2, "a lower bound that a slow machine cannot break"


def test_1_13_hangs_where_other_versions_return_an_error(brisk: Caller) -> None:
    nowhere = "11111111-1111-4111-8111-111111111111"
    for answer in (
        brisk.ask("demo-advanced-chat@1.13", "hi", conversation_id=nowhere),
        brisk.ask("demo-workflow@1.13", "", inputs={}),
        brisk.ask("demo-advanced-chat@1.13", "hi", response_mode="blocking"),
    ):
        assert (answer.status_code, answer.content) == (200, b"event: ping\n\n")
    assert brisk.ask("demo-chat@1.13", "hi", conversation_id=nowhere).status_code == 404
    assert brisk.ask("demo-workflow@1.11", "", inputs={}).status_code == 400


def test_0_15_omits_its_mode_and_rejects_routes_of_other_modes(demo: Caller) -> None:
    assert set(demo.get("/info", "demo-workflow@0.15").json()) == {"name", "description", "tags"}
    refusals = {
        "demo-workflow": ("not_chat_app", "app_unavailable", None),
        "demo-completion": ("not_chat_app", None, "not_workflow_app"),
        "demo-chat": (None, "app_unavailable", "not_workflow_app"),
    }
    for name, codes in refusals.items():
        for path, code in zip(("/chat-messages", "/completion-messages", "/workflows/run"), codes, strict=True):
            body = demo.body("demo-completion", "hi", response_mode="blocking")
            answer = demo.post(path, f"{name}@0.15", body)
            assert answer.json().get("code") == code


@pytest.mark.parametrize("version", ["1.11", "1.13", "1.16"])
@pytest.mark.parametrize("name", NAMES)
def test_stopping_checks_the_user_except_for_graphs_of_1_16(demo: Caller, name: str, version: str) -> None:
    stopped_by_anyone = version == "1.16" and demo.mode(name) in ("advanced-chat", "workflow")
    question = "SLOW:900x100" if stopped_by_anyone else "SLOW:8x20"
    events = ask_and_stop(demo, f"{name}@{version}", user="somebody else", question=question)
    assert demo.log.stops[-1].effective is stopped_by_anyone
    assert demo.log.runs[-1].state == ("stopped" if stopped_by_anyone else "finished")
    assert ("tick 8" in answer_in(events)) is not stopped_by_anyone


async def test_run_continues_after_its_client_disconnects(demo: Caller) -> None:
    await asyncio.gather(*(disconnect_and_await_the_end(demo, name) for name in NAMES))
    await demo.log.wait_for(lambda log: log.open_requests == 0)


async def disconnect_and_await_the_end(demo: Caller, name: str) -> None:
    """Disconnect after the first bytes, seconds before the run ends, and wait for its end."""
    question = f"SLOW:4x1000 {name}, unread"
    url, body = demo.server.url + _path(demo, name), demo.body(name, question)
    async with (
        httpx2.AsyncClient(timeout=60) as http,
        http.stream("POST", url, headers=demo.headers(name), json=body) as response,
    ):
        await anext(response.aiter_raw())
        run = next(run for run in demo.log.runs if run.question == question)
        assert run.state == "running"
    await demo.log.wait_for(lambda log: run.disconnected_at)
    assert run.finished_at is None
    await demo.log.wait_for(lambda log: run.state == "finished")
    assert "tick 4" in run.answer


def test_version_decides_whether_an_abandoned_turn_is_stored(demo: Caller) -> None:
    stored = {"demo-chat@1.16": False, "demo-advanced-chat@1.11": False, "demo-advanced-chat@1.16": True}
    with ThreadPoolExecutor() as pool:
        assert dict(zip(stored, pool.map(partial(is_abandoned_turn_stored, demo), stored), strict=True)) == stored


def is_abandoned_turn_stored(demo: Caller, name: str) -> bool:
    """Disconnect after the first bytes, and return whether the stored turn has its answer."""
    question = f"SLOW:3x1000 {name}, abandoned"
    url, body = f"{demo.server.url}/chat-messages", demo.body(name, question)
    with demo.http.stream("POST", url, headers=demo.headers(name), json=body) as response:
        next(response.iter_raw())
        run = next(run for run in demo.log.runs if run.question == question)
    demo.log.wait(lambda log: run.state == "finished")
    rows = demo.get("/messages", name, user="u1", conversation_id=run.conversation_id).json()["data"]
    return bool(rows[0]["answer"])


def test_log_records_requests_and_timeouts_name_the_latest_entries(demo: Caller) -> None:
    demo.ask("demo-workflow@1.13", "find me")
    request = demo.log.requests[-1]
    assert (request.method, request.path, request.app, request.dialect) == (
        "POST",
        "/v1/workflows/run",
        "demo-workflow",
        "1.13",
    )
    assert request.body["inputs"]["query"] == "find me"
    assert "authorization" not in request.headers
    with pytest.raises(TimeoutError, match="demo-workflow"):
        demo.log.wait(lambda log: False, timeout=0.01)


async def test_log_wakes_waiting_coroutines(demo: Caller) -> None:
    waiting = asyncio.create_task(demo.log.wait_for(lambda log: log.runs and log.runs[-1].question == "wake up"))
    await asyncio.to_thread(demo.ask, "demo-chat", "wake up")
    await waiting


def test_uploads_belong_to_their_user_since_1_14(demo: Caller) -> None:
    for version, status in (("1.11", 200), ("1.16", 400)):
        app = f"demo-chat@{version}"
        uploaded = demo.http.post(
            f"{demo.server.url}/files/upload",
            headers=demo.headers(app),
            files={"file": ("a.png", b"png", "image/png")},
            data={"user": "u1"},
        ).json()
        file = {"type": "image", "transfer_method": "local_file", "upload_file_id": uploaded["id"]}
        assert demo.ask(app, "look", files=[file]).status_code == 200
        assert demo.ask(app, "look", files=[file], user="u2").status_code == status


def test_pieces_arrive_at_the_configured_pace() -> None:
    """The times are lower bounds, which a slow machine cannot break."""
    with DemoServer(timing=Timing(token=0.02, naming=0.0)) as server, httpx2.Client() as http:
        caller = Caller(server, http)
        started = time.monotonic()
        caller.ask("demo-chat", "SAY<<one two three four five>>")
        assert time.monotonic() - started >= 5 * 0.02
        assert server.open_connections == 1


def test_faults_are_off_by_default() -> None:
    question = "CUT EOF SILENCE MIDSILENCE PINGS GARBAGE BADUTF8 OVERSIZE:9 QUEUE:9 HEADERS:9"
    with DemoServer() as server, httpx2.Client() as http:
        events = read_events(Caller(server, http).ask("demo-chat", question).content)
    assert question in answer_in(events)
    assert events[-1]["event"] == "message_end"


def test_server_can_have_its_own_default_version() -> None:
    with DemoServer("1.13") as server, httpx2.Client() as http:
        assert http.get(f"{server.url}/").json()["server_version"] == "1.13.0"
        assert Caller(server, http).ask("demo-chat", "hi").headers["x-version"] == "1.13.0"


def test_new_agent_asks_for_human_input(demo: Caller) -> None:
    events = read_events(demo.ask("demo-agent", "PAUSE").content)
    assert order(events) == ["agent_thought", "message", "message_end"]
    assert json.loads(events[0]["tool_input"]) == {"question": events[-2]["answer"]}


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        ("provider", 400, "provider_not_initialize"),
        ("quota", 400, "provider_quota_exceeded"),
        ("crash", 500, "unknown"),
    ],
)
def test_requests_can_be_rejected_before_any_stream(demo: Caller, word: str, status: int, code: str) -> None:
    answer = demo.ask("demo-workflow", f"ERROR:{word}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert demo.ask("demo-workflow", "ERROR:nginx").headers["content-type"].startswith("text/html")


def test_messages_are_rated_and_followed_by_questions(demo: Caller) -> None:
    """Status, codes and bodies are those of `msg-suggested` and `msg-feedback-*` of 1.11, and `newagent-suggested`."""
    events = read_events(demo.ask("demo-chat", "hello", user="rater").content)
    path, headers = f"/messages/{events[-1]['message_id']}", demo.headers("demo-chat")
    suggested = demo.get(f"{path}/suggested", "demo-chat", user="rater")
    assert (suggested.status_code, sorted(suggested.json()), len(suggested.json()["data"])) == (
        200,
        ["data", "result"],
        3,
    )
    answer = suggested
    for user, rating, status, code in (
        ("rater", "like", 200, None),
        ("rater", None, 200, None),
        ("rater", "meh", 400, "invalid_param"),
        ("other", "like", 404, "not_found"),
    ):
        answer = demo.http.post(
            f"{demo.server.url}{path}/feedbacks", headers=headers, json={"user": user, "rating": rating}
        )
        assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert answer.json() == {"code": "not_found", "message": "Message Not Exists.", "status": 404}
    silent = demo.get(f"{path}/suggested", "demo-agent", user="rater")
    assert silent.json() == {"code": "bad_request", "message": "Suggested Questions Is Disabled.", "status": 400}
