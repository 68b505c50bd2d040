"""Files that the demo produces: events, links and contents."""

from __future__ import annotations

import io
import re
from typing import Any

import httpx2
import pytest
from PIL import Image

from demo.tests.conftest import Caller
from demo.tests.recorded import fields, order, read_events, recording
from openai_dify_proxy_demo.file_store import FileStore, MadeFile

NEWEST = "1.16.1-main-2026-08-19"
LINK = re.compile(r"\]\(([^)\s]+)\)")

MODES = ("demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-completion", "demo-workflow", "demo-agent")


def links(events: list[dict[str, Any]]) -> list[str]:
    """Return the links of a stream: those in its text, and those of `message_file` events."""
    text = "".join(event.get("answer") or event.get("data", {}).get("text", "") for event in events)
    return LINK.findall(text) + [event["url"] for event in events if event["event"] == "message_file"]


def only_file(demo: Caller, app: str, question: str) -> httpx2.Response:
    """Return the response to the first link of an answer."""
    return demo.http.get(links(read_events(demo.ask(app, question).content))[0])


def file_lists(value: Any) -> list[list[list[str]]]:
    """Return the keys of the file objects in every list of files, in the order of the stream."""
    if isinstance(value, list):
        return [found for item in value for found in file_lists(item)]
    if not isinstance(value, dict):
        return []
    here = [[list(file) for file in value["files"]]] if value.get("files") else []
    return here + [found for inner in value.values() for found in file_lists(inner)]


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("chat-llm-image", "demo-chat"),
        ("chatflow-llm-image", "demo-advanced-chat"),
        ("workflow-llm-image", "demo-workflow"),
    ],
)
def test_a_drawing_has_the_recorded_events_and_fields(demo: Caller, name: str, app: str) -> None:
    recorded = recording(NEWEST, name).events()
    events = read_events(demo.ask(app, "DRAW a picture").content)
    assert order(events) == order(recorded)
    ours, theirs = fields(events), fields(recorded)
    for event in ("message_file", "message_end", "node_finished llm succeeded", "workflow_finished succeeded"):
        assert ours.get(event) == theirs.get(event)
    assert file_lists(events) == file_lists(recorded)


def test_the_final_answer_repeats_links_with_other_signatures_as_recorded(demo: Caller) -> None:
    ours = read_events(demo.ask("demo-advanced-chat", "DRAW a picture").content)
    for events in (recording(NEWEST, "chatflow-llm-image").events(), ours):
        streamed = "".join(event["answer"] for event in events if event["event"] == "message")
        answer = next(event for event in events if event["event"] == "workflow_finished")["data"]["outputs"]["answer"]
        sent, repeated = LINK.findall(streamed), LINK.findall(answer)
        assert sent[0] == repeated[0]
        assert sent[1] != repeated[1]
        assert LINK.sub("]()", streamed) == LINK.sub("]()", answer)
        paths = {link.partition("?")[0] for link in sent + repeated}
        assert len(paths) == 1


@pytest.mark.parametrize("app", MODES)
@pytest.mark.parametrize("word", ["DRAW", "FILE"])
def test_every_mode_produces_a_picture(demo: Caller, app: str, word: str) -> None:
    events = read_events(demo.ask(app, f"{word} of a fox").content)
    found = links(events)
    if (app, word) == ("demo-workflow", "FILE"):
        found = [file["url"] for file in events[-1]["data"]["files"]]
    for link in found:
        reply = demo.http.get(link)
        assert reply.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(reply.content)).size == (256, 256)
    assert found


@pytest.mark.parametrize("app", ["demo-chat", "demo-agent-chat", "demo-completion"])
def test_message_files_have_no_type_in_their_names(demo: Caller, app: str) -> None:
    (link,) = links(read_events(demo.ask(app, "DRAW").content))
    assert link.partition("?")[0].endswith(".bin")
    theirs = next(event for event in recording(NEWEST, "chat-llm-image").events() if event["event"] == "message_file")
    assert re.sub(r"[\w-]{20,}|\d+", "x", link.partition("/files")[2]) == re.sub(
        r"[\w-]{20,}|\d+", "x", theirs["url"].partition("/files")[2]
    )


@pytest.mark.parametrize("version", ["1.11", "1.13"])
def test_older_versions_list_no_files_at_the_end_of_a_chat(demo: Caller, version: str) -> None:
    events = read_events(demo.ask(f"demo-chat@{version}", "DRAW").content)
    assert len(links(events)) == 1
    assert events[-1]["files"] is None


@pytest.mark.parametrize(
    ("words", "media_type", "start"),
    [
        ("jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("webp", "image/webp", b"RIFF"),
        ("svg", "image/svg+xml", b"<svg "),
        ("html", "text/html; charset=utf-8", b"<!doctype html>"),
        ("text", "text/plain; charset=utf-8", b"A drawing"),
        ("pdf", "application/pdf", b"%PDF-"),
        ("lying", "image/png", b"<!doctype html>"),
    ],
)
def test_a_word_selects_the_kind_of_file(demo: Caller, words: str, media_type: str, start: bytes) -> None:
    reply = only_file(demo, "demo-advanced-chat", f"DRAW:{words} please")
    assert reply.headers["content-type"] == media_type
    assert reply.content.startswith(start)
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_a_file_can_be_large(demo: Caller) -> None:
    reply = only_file(demo, "demo-chat", "DRAW:3mb")
    assert len(reply.content) == int(reply.headers["content-length"]) == 3 * 1024 * 1024
    assert Image.open(io.BytesIO(reply.content)).size == (256, 256)


def test_links_can_be_relative_internal_expired_or_dead(demo: Caller) -> None:
    server = demo.server.url.removesuffix("/v1")
    asked = "DRAW:relative DRAW:internal DRAW:expired DRAW:gone"
    relative, internal, expired, gone = links(read_events(demo.ask("demo-chat", asked).content))
    assert relative.startswith("/files/tools/")
    assert internal.startswith("http://api:5001/files/tools/")
    for link in (relative, internal.removeprefix("http://api:5001")):
        assert demo.http.get(server + link).content.startswith(b"\x89PNG")
    assert (demo.http.get(expired).status_code, demo.http.get(gone).status_code) == (403, 404)
    assert demo.http.get(relative.partition("&sign=")[0].join((server, "&sign=x"))).status_code == 403


def test_the_signature_covers_file_and_time() -> None:
    store = FileStore(b"secret")
    first, second = (store.add(MadeFile("a.png", "image", "image/png", b"x")) for _ in range(2))
    query = dict(part.split("=", 1) for part in store.link(first, "http://d").partition("?")[2].split("&"))
    assert store.verifies(first.id, query)
    assert not store.verifies(second.id, query)
    later = query | {"timestamp": str(int(query["timestamp"]) + 1)}
    assert not store.verifies(first.id, later)
    assert not FileStore(b"other").verifies(first.id, query)


def test_each_picture_of_a_text_differs(demo: Caller) -> None:
    pictures = [demo.http.get(link).content for _ in range(2) for link in links(_ask(demo, "DRAW DRAW a lighthouse"))]
    assert len(set(pictures)) == 4


def test_a_painter_needs_no_keyword_and_takes_a_size(demo: Caller) -> None:
    body = demo.body("demo-workflow-painter", "x") | {"inputs": {"prompt": "A fox", "size": "64x32"}}
    events = read_events(demo.post("/workflows/run", "demo-workflow-painter", body).content)
    (link,) = links(events)
    assert Image.open(io.BytesIO(demo.http.get(link).content)).size == (64, 32)


def _ask(demo: Caller, question: str) -> list[dict[str, Any]]:
    return read_events(demo.ask("demo-chat", question).content)
