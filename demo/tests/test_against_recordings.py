"""Streams and bodies of the demo have the event order and fields of real Dify servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.tests.conftest import Caller
from demo.tests.recorded import fields, order, read_events, recording

VERSIONS = {"1.11": "1.11.2", "1.13": "1.13.0", "1.16": "1.16.1"}
ALL = tuple(VERSIONS)

STREAMS: list[tuple[str, str, str, tuple[str, ...]]] = [
    # recording, demo app, question, versions
    ("chat-stream-2", "demo-chat", "hello", ALL),
    ("chat-empty-stream", "demo-chat", "EMPTY", ALL),
    ("chat-error-pre-bad-stream", "demo-chat", "ERROR", ALL),
    ("chat-error-pre-rate-stream", "demo-chat", "ERROR:rate", ALL),
    ("chat-error-pre-conn-stream", "demo-chat", "ERROR:conn", ALL),
    ("chat-file-remote-404", "demo-chat", "ERROR:internal", ALL),
    ("chat-error-mid-bad-stream", "demo-chat", "MIDERROR", ALL),
    ("completion-stream", "demo-completion", "hello", ALL),
    ("completion-error-pre-stream", "demo-completion", "ERROR", ALL),
    ("agent-stream-plain", "demo-agent-chat", "hello", ALL),
    ("agent-stream-think", "demo-agent-chat", "THINK", ALL),
    ("agent-stream-tool", "demo-agent-chat", "TOOL", ALL),
    ("agent-stream-error-pre", "demo-agent-chat", "ERROR", ALL),
    ("agent-stream-error-mid", "demo-agent-chat", "MIDERROR", ALL),
    ("chatflow-llm-stream-1", "demo-advanced-chat", "hello", ALL),
    ("chatflow-error-mid-stream", "demo-advanced-chat", "MIDERROR:rate", ALL),
    ("chatflow-failbranch-stream", "demo-advanced-chat", "PARTIAL", ALL),
    ("chatflow-think-separated-stream", "demo-advanced-chat", "THINK:separated", ALL),
    ("rag-chatflow-stream", "demo-advanced-chat", "CITE", ("1.11", "1.16")),
    ("workflow-llm-stream", "demo-workflow", "hello", ALL),
    ("workflow-error-mid-stream", "demo-workflow", "MIDERROR:rate", ALL),
    ("workflow-error-pre-stream", "demo-workflow", "ERROR", ALL),
    ("workflow-think-separated-stream", "demo-workflow", "THINK:separated", ("1.16",)),
    ("workflow-noend-stream", "demo-workflow-endless", "hello", ALL),
    ("newagent-stream-plain", "demo-agent", "hello", ("1.16",)),
    ("newagent-stream-tool", "demo-agent", "TOOL", ("1.16",)),
    ("newagent-stream-think", "demo-agent", "THINK", ("1.16",)),
    ("newagent-stream-error-pre-auth", "demo-agent", "ERROR:auth", ("1.16",)),
    ("newagent-stream-error-mid-rate", "demo-agent", "MIDERROR:rate", ("1.16",)),
]

STOPS = [
    ("stop-chat", "demo-chat", ALL),
    ("stop-agent", "demo-agent-chat", ALL),
    ("stop-completion", "demo-completion", ALL),
    ("stop-chatflow", "demo-advanced-chat", ALL),
    ("stop-workflow", "demo-workflow", ALL),
    ("newagent-stop", "demo-agent", ("1.16",)),
]


@pytest.mark.parametrize(
    ("name", "app", "question", "version"),
    [(name, app, question, version) for name, app, question, versions in STREAMS for version in versions],
)
def test_a_stream_has_the_recorded_order_and_fields(
    demo: Caller, name: str, app: str, question: str, version: str
) -> None:
    recorded = recording(VERSIONS[version], name)
    answer = demo.ask(f"{app}@{version}", question)
    events = read_events(answer.content)
    assert order(events) == order(recorded.events())
    assert fields(events) == fields(recorded.events())
    assert set(recorded.headers) - {"vary"} == set(answer.headers) - {"vary"}
    for header in ("content-type", "x-version", "server", "connection"):
        assert answer.headers.get(header) == recorded.headers.get(header)


@pytest.mark.parametrize(
    ("name", "app", "version"), [(name, app, version) for name, app, versions in STOPS for version in versions]
)
def test_a_stopped_stream_ends_as_recorded(demo: Caller, name: str, app: str, version: str) -> None:
    recorded = recording(VERSIONS[version], name).events()
    events = ask_and_stop(demo, f"{app}@{version}", user="u1")
    assert order(events) == order(recorded)
    assert fields(events) == fields(recorded)
    assert demo.log.runs[-1].state == "stopped"


def ask_and_stop(demo: Caller, app: str, *, user: str, question: str = "SLOW:900x100") -> list[dict[str, Any]]:
    """Run a slow turn, stop it as `user` after the first words, and return its events."""
    path = {"completion": "/completion-messages", "workflow": "/workflows/run"}.get(demo.mode(app), "/chat-messages")
    stop = "/workflows/tasks" if path == "/workflows/run" else path
    body, received = b"", False
    with demo.http.stream(
        "POST", demo.server.url + path, headers=demo.headers(app), json=demo.body(app, question)
    ) as response:
        for chunk in response.iter_raw():
            body += chunk
            if not received and b"tick" in body:
                received = True
                task_id = next(event["task_id"] for event in read_events(body) if "task_id" in event)
                stopped = demo.post(f"{stop}/{task_id}/stop", app, {"user": user})
                assert (stopped.status_code, stopped.json()) == (200, {"result": "success"})
    return read_events(body)


@pytest.mark.parametrize("version", ALL)
def test_a_chat_with_files_answers_in_the_recorded_event(demo: Caller, version: str) -> None:
    recorded = recording(VERSIONS[version], "chat-file-local-doc").events()
    files = [{"type": "image", "transfer_method": "remote_url", "url": "https://example.com/cat.png"}]
    events = read_events(demo.ask(f"demo-chat@{version}", "look", files=files).content)
    assert order(events) == order(recorded)
    assert fields(events) == fields(recorded)


def test_a_paused_chatflow_has_the_recorded_fields(demo: Caller) -> None:
    recorded = recording("1.16.1", "human-pause-4").events()
    events = read_events(demo.ask("demo-advanced-chat@1.16", "PAUSE").content)
    assert [event["event"] for event in events[-2:]] == [event["event"] for event in recorded[-2:]]
    for ours, theirs in zip(events[-2:], recorded[-2:], strict=True):
        assert set(ours["data"]) == set(theirs["data"])
    assert set(events[-1]["data"]["reasons"][0]) == set(recorded[-1]["data"]["reasons"][0])


@pytest.mark.parametrize("version", ["1.11", "1.16"])
def test_citations_and_files_have_the_recorded_fields(demo: Caller, version: str) -> None:
    cited = read_events(demo.ask(f"demo-advanced-chat@{version}", "CITE").content)
    recorded = recording(VERSIONS[version], "rag-chatflow-stream").events()
    assert set(_resources(cited)[0]) == set(_resources(recorded)[0])
    assert [resource["doc_metadata"] for resource in _resources(cited)] == [
        {"url": "https://example.com/handbook"},
        None,
    ]
    made = read_events(demo.ask(f"demo-advanced-chat@{version}", "FILE").content)
    recorded = recording(VERSIONS[version], "chatflow-fileout-stream").events()
    assert set(_named(made, "message_end")["files"][0]) == set(_named(recorded, "message_end")["files"][0])
    file = _named(made, "workflow_finished")["data"]["files"][0]
    path = file["url"].partition("?")[0]
    assert path in _named(made, "workflow_finished")["data"]["outputs"]["answer"]
    assert demo.http.get(file["url"]).content.startswith(b"\x89PNG")


def test_retry_has_the_recorded_fields_and_repeats_its_text(demo: Caller) -> None:
    recorded = recording("1.16.1", "chatflow-retry-exhausted").events()
    events = read_events(demo.ask("demo-advanced-chat", "RETRY SAY<<one two three four five>>").content)
    assert fields(events)["node_retry llm retry"] == fields(recorded)["node_retry llm retry"]
    assert "".join(event.get("answer", "") for event in events) == "one two threeone two three four five"
    assert _named(events, "workflow_finished")["data"]["outputs"]["answer"] == "one two three four five"


def test_missing_required_input_fails_a_graph_as_recorded(demo: Caller) -> None:
    recorded = recording("1.16.1", "workflow-missing-required-stream").events()
    events = read_events(
        demo.post("/workflows/run", "demo-workflow@1.16", demo.body("demo-workflow", "") | {"inputs": {}}).content
    )
    assert order(events) == order(recorded)
    assert fields(events) == fields(recorded)
    assert events[-1]["data"]["error"] == recorded[-1]["data"]["error"] == "query is required in input form"


ERRORS: list[tuple[str, str, str, dict[str, Any]]] = [
    # recording, path, demo app, changes to a valid body (None removes the field)
    ("err-chat-missing-user", "/chat-messages", "demo-chat", {"user": None}),
    ("err-chat-empty-user", "/chat-messages", "demo-chat", {"user": ""}),
    ("err-chat-empty-query", "/chat-messages", "demo-chat", {"query": ""}),
    ("err-chat-on-completion-app", "/chat-messages", "demo-completion", {}),
    ("err-chat-on-workflow-app", "/chat-messages", "demo-workflow", {}),
    ("err-completion-on-chat-app", "/completion-messages", "demo-chat", {}),
    ("err-app-api-disabled", "/chat-messages", "demo-chat", {"query": "ERROR:disabled"}),
    ("err-chat-required-input-missing", "/chat-messages", "demo-chat-topic", {}),
    ("workflow-missing-required-block", "/workflows/run", "demo-workflow", {"response_mode": "blocking"}),
    ("chat-user-256", "/chat-messages", "demo-chat", {"user": "u" * 256}),
    ("stop-nouser", "/chat-messages/11111111-1111-4111-8111-111111111111/stop", "demo-chat", {"user": None}),
    ("stop-unknown-task", "/chat-messages/11111111-1111-4111-8111-111111111111/stop", "demo-chat", {}),
    ("agent-blocking", "/chat-messages", "demo-agent-chat", {"response_mode": "blocking"}),
    ("newagent-blocking", "/chat-messages", "demo-agent", {"response_mode": "blocking"}),
]


@pytest.mark.parametrize(("name", "path", "app", "changes"), ERRORS)
def test_error_equals_the_recorded_one(demo: Caller, name: str, path: str, app: str, changes: dict[str, Any]) -> None:
    recorded = recording("1.16.1", name)
    body = {key: value for key, value in (demo.body("demo-chat", "hi") | changes).items() if value is not None}
    answer = demo.post(path, app, body)
    assert (answer.status_code, answer.content) == (recorded.status, recorded.body)


@pytest.mark.parametrize(
    ("name", "authorization"),
    [
        ("err-auth-badkey-info", "Bearer app-unknown"),
        ("err-auth-nokey-chat", None),
        ("err-auth-nospace", "Bearerapp-demo-chat"),
    ],
)
def test_invalid_key_is_rejected_as_recorded(demo: Caller, name: str, authorization: str | None) -> None:
    recorded = recording("1.16.1", name)
    headers = {"Authorization": authorization} if authorization else {}
    answer = demo.http.get(f"{demo.server.url}/info", headers=headers)
    assert (answer.status_code, answer.content) == (recorded.status, recorded.body)
    assert answer.headers["www-authenticate"] == recorded.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("name", "content"), [("err-chat-malformed-json", b'{"inputs": {}, "query": '), ("err-chat-body-array", b"[]")]
)
def test_invalid_body_is_rejected_as_recorded(demo: Caller, name: str, content: bytes) -> None:
    recorded = recording("1.16.1", name)
    headers = {**demo.headers("demo-chat"), "Content-Type": "application/json"}
    answer = demo.http.post(f"{demo.server.url}/chat-messages", headers=headers, content=content)
    assert (answer.status_code, answer.content) == (recorded.status, recorded.body)


@pytest.mark.parametrize(
    ("name", "app", "question", "changes"),
    [
        ("err-concurrency-limit-stream", "demo-chat", "ERROR:limit", {}),
        ("chat-error-pre-rate-block", "demo-chat", "ERROR:rate", {"response_mode": "blocking"}),
        ("chatflow-error-pre-block", "demo-advanced-chat", "ERROR", {"response_mode": "blocking"}),
        ("chat-conv-other-user", "demo-chat", "hi", {"conversation_id": "11111111-1111-4111-8111-111111111111"}),
        ("chatflow-conv-404", "demo-advanced-chat", "hi", {"conversation_id": "11111111-1111-4111-8111-111111111111"}),
        ("err-chat-conv-not-uuid", "demo-chat", "hi", {"conversation_id": "abc"}),
        ("chat-file-other-user", "demo-chat", "hi", {"files": [{"type": "image", "transfer_method": "local_file"}]}),
    ],
)
def test_failure_has_the_recorded_code_and_message_start(
    demo: Caller, name: str, app: str, question: str, changes: dict[str, Any]
) -> None:
    recorded = recording("1.16.1", name)
    answer = demo.ask(app, question, **changes)
    ours, theirs = answer.json(), recorded.json()
    assert (answer.status_code, ours["code"], ours["status"]) == (recorded.status, theirs["code"], theirs["status"])
    if name not in ("chat-error-pre-rate-block", "chatflow-error-pre-block"):
        assert ours["message"][:16] == theirs["message"][:16]


@pytest.mark.parametrize("version", ["1.11", "1.16"])
@pytest.mark.parametrize(
    ("name", "app", "question"),
    [
        ("chat-block-1", "demo-chat", "hello"),
        ("completion-block", "demo-completion", "hello"),
        ("chatflow-llm-block", "demo-advanced-chat", "hello"),
        ("workflow-llm-block", "demo-workflow", "hello"),
        ("workflow-error-pre-block", "demo-workflow", "ERROR"),
    ],
)
def test_a_blocking_body_has_the_recorded_fields(
    demo: Caller, version: str, name: str, app: str, question: str
) -> None:
    recorded = recording(VERSIONS[version], name)
    answer = demo.ask(f"{app}@{version}", question, response_mode="blocking")
    assert answer.status_code == recorded.status == 200
    assert fields([{"event": "", **answer.json()}]) == fields([{"event": "", **recorded.json()}])
    assert json.dumps(answer.json()) == answer.text, "spaces and escapes as json.dumps writes them"


@pytest.mark.parametrize("version", ["1.11", "1.16"])
@pytest.mark.parametrize(
    ("name", "path", "app"),
    [
        ("meta-info-chat", "/info", "demo-chat"),
        ("meta-meta-chat", "/meta", "demo-chat"),
        ("meta-site-chat", "/site", "demo-chat"),
        ("meta-parameters-completion", "/parameters", "demo-completion"),
        ("list-conversations-workflow", "/conversations", "demo-workflow"),
    ],
)
def test_app_information_has_the_recorded_fields(demo: Caller, version: str, name: str, path: str, app: str) -> None:
    recorded = recording(VERSIONS[version], name)
    answer = demo.get(path, f"{app}@{version}")
    assert answer.status_code == recorded.status
    assert set(answer.json()) == set(recorded.json())


@pytest.mark.parametrize("version", ["1.11", "1.16"])
def test_stored_turns_have_the_recorded_fields(demo: Caller, version: str) -> None:
    app = f"demo-advanced-chat@{version}"
    first = read_events(demo.ask(app, "first", user="reader").content)
    conversation_id = next(event["conversation_id"] for event in first if "conversation_id" in event)
    demo.ask(app, "second", user="reader", conversation_id=conversation_id)
    for path, name in (("/messages", "list-messages"), ("/conversations", "list-conversations")):
        ours = demo.get(path, app, user="reader", conversation_id=conversation_id).json()
        theirs = recording(VERSIONS[version], name).json()
        assert set(ours) == set(theirs)
        assert set(ours["data"][0]) == set(theirs["data"][0])


@pytest.mark.parametrize("version", ["1.11", "1.16"])
def test_an_upload_has_the_recorded_fields(demo: Caller, version: str) -> None:
    recorded = recording(VERSIONS[version], "file-upload-txt")
    answer = demo.http.post(
        f"{demo.server.url}/files/upload",
        headers=demo.headers(f"demo-chat@{version}"),
        files={"file": ("doc.txt", b"one\r\n\xff\x00two", "text/plain")},
        data={"user": "u1"},
    )
    assert answer.status_code == recorded.status
    assert set(answer.json()) == set(recorded.json())
    expected = {"name": "doc.txt", "size": 10, "extension": "txt", "mime_type": "text/plain"}
    assert {key: answer.json()[key] for key in expected} == expected
    nothing = demo.http.post(f"{demo.server.url}/files/upload", headers=demo.headers("demo-chat"))
    assert nothing.json() == recording(VERSIONS[version], "file-upload-nofile").json()


def test_unknown_path_returns_the_recorded_page(demo: Caller) -> None:
    recorded = recording("1.16.1", "err-unknown-path")
    answer = demo.http.get(f"{demo.server.url}/nothing", headers=demo.headers("demo-chat"))
    assert (answer.status_code, answer.content.strip()) == (recorded.status, recorded.body.strip())


def _named(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(event for event in reversed(events) if event["event"] == name)


def _resources(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    resources: list[dict[str, Any]] = _named(events, "message_end")["metadata"]["retriever_resources"]
    return resources
