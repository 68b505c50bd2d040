"""Compare the expected answers with sources that the proxy did not write.

``test_replay`` shows that the proxy answers with ``NAME.expected.json``. These tests compare that file with Dify's own
records of the same turns (blocking answers, message lists, stored runs, the outputs and token counts inside a stream)
and with the scripted model behind the recorded Dify servers, which answers keywords with known texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from tests.recordings.archive import VERSIONS, Json, Recording, named, recordings, select, streams
from tests.recordings.sdk_answers import text_of

RUNS = [recording for recording in streams() if recording.mode in ("advanced-chat", "workflow")]
GOOD = ("succeeded", "partial-succeeded")


def visible(text: str) -> str:
    """Remove the reasoning from a text."""
    return re.sub(r"<think>.*?</think>\n*", "", text, flags=re.DOTALL)


def streamed(recording: Recording) -> str:
    """Join the expected deltas, also of a stream that broke off."""
    return text_of(recording.expected()["stream"])


def failed(recording: Recording) -> Json | None:
    error: Json | None = recording.expected()["answer"].get("error")
    return error


def usage(recording: Recording) -> Any:
    return recording.expected()["answer"]["usage"]


def counted(usages: Iterable[Json]) -> list[int]:
    counts = list(usages)
    return [sum(usage[name] for usage in counts) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def finished(recording: Recording) -> Json | None:
    """Return the data of ``workflow_finished``."""
    events = recording.events_named("workflow_finished")
    return events[-1]["data"] if events else None


# The blocking twin of the same question


def question(recording: Recording) -> tuple[str, ...]:
    body = {name: value for name, value in recording.request_json.items() if name not in _IRRELEVANT}
    return recording.folder, recording.request["app"], recording.request["path"], json.dumps(body, sort_keys=True)


_IRRELEVANT = ("response_mode", "auto_generate_name", "user", "_note")


def test_answers_are_those_of_the_blocking_twins() -> None:
    twins = {question(recording): recording for recording in select(lambda each: each.is_blocking_answer)}
    pairs = [(stream, twins[question(stream)]) for stream in streams() if question(stream) in twins]
    for stream, twin in pairs:
        blocking = twin.json()
        if blocking.get("data", {}).get("error"):
            error = failed(stream)
            assert error is not None, stream.label
            assert error["message"].removesuffix(".").endswith(blocking["data"]["error"].removesuffix(".")), (
                stream.label
            )
        elif blocking.get("event") == "workflow_paused":
            assert streamed(stream).startswith(
                blocking["data"]["answer"] if "answer" in blocking["data"] else blocking["answer"]
            )
        elif stream.mode == "workflow":
            assert streamed(stream) == rendered(blocking["data"]["outputs"]), stream.label
        else:
            assert unsigned(streamed(stream)) == unsigned(visible(blocking["answer"])), stream.label
            assert usage(stream) == counted([blocking["metadata"]["usage"]]), stream.label
    assert len(pairs) >= 52
    assert {stream.mode for stream, _ in pairs} == {"chat", "advanced-chat", "completion", "workflow"}


def rendered(outputs: Json) -> str:
    """Join a workflow's outputs as its text chunks do: in order, separated by line breaks, lists as Markdown."""

    def text(value: Any) -> str:
        if isinstance(value, list):
            return "\n".join(f"- {item}" for item in value)
        return value if isinstance(value, str) else json.dumps(value)

    return "\n".join(text(value) for value in outputs.values())


def unsigned(text: str) -> str:
    """Replace the name and signature in links to Dify's files, since they differ in each run."""
    return re.sub(r"[0-9a-f-]{32,36}\.png(\?[^)\s]*)?", "FILE", text)


# Dify's own lists


def test_answers_are_those_of_the_message_lists() -> None:
    lists = select(lambda each: each.request["path"].startswith("/messages?") and each.status == 200)
    rows = {row["id"]: row for listed in lists for row in listed.json()["data"]}
    seen = set()
    for stream in streams():
        for message_id in {event.get("message_id") for event in stream.events()} & set(rows):
            row = rows[message_id]
            seen.add(stream.name)
            if failed(stream):  # the recorder disconnected: Dify's text is empty or longer than the stream
                assert row["answer"] == "" or row["answer"].startswith(streamed(stream)), stream.label
            elif row["status"] == "paused":
                assert streamed(stream).startswith(row["answer"]), stream.label
            else:
                assert streamed(stream) == visible(row["answer"]), stream.label
                assert row.get("total_tokens") in (None, usage(stream)[2]), stream.label
    assert seen >= {"agent-stream-tool", "agent-stream-turn2", "chatflow-llm-stream-1", "chatflow-llm-stream-2"}
    assert "newagent-full-askhuman" in seen


def test_answers_are_those_of_the_stored_runs() -> None:
    stored = select(lambda each: each.request["path"].startswith("/workflows/run/") and each.status == 200)
    runs = {run["id"]: run for run in (recording.json() for recording in stored)}
    seen = set()
    for stream in streams():
        for run_id in {event.get("workflow_run_id") for event in stream.events()} & set(runs):
            outputs = runs[run_id]["outputs"]
            outputs = json.loads(outputs) if isinstance(outputs, str) else outputs
            seen.add(stream.label)
            if stream.name == "disconnect-workflow":
                assert outputs["text"].startswith(streamed(stream)), stream.label
            else:
                assert streamed(stream) == outputs["text"], stream.label
                assert runs[run_id]["total_tokens"] == usage(stream)[2], stream.label
    assert len(seen) == 6


# A stream's own totals


@pytest.mark.parametrize("folder", VERSIONS)
def test_answers_are_the_outputs_of_their_runs(folder: str) -> None:
    compared = 0
    for stream in streams(folder):
        run = finished(stream)
        if run is None or run["status"] not in GOOD:
            continue
        compared += 1
        text = run["outputs"].get("answer", "") if stream.mode == "advanced-chat" else rendered(run["outputs"])
        # In the outputs, and only there, Dify writes the name of an unset variable of the template.
        assert unsigned(streamed(stream)) == unsigned(visible(text)).removesuffix("llm.files"), stream.label
    assert compared >= (3 if "main" in folder else 26)


@pytest.mark.parametrize("folder", VERSIONS)
def test_answers_are_the_parts_that_dify_sent(folder: str) -> None:
    """No text is lost or repeated for apps that do not repeat it themselves."""
    for stream in streams(folder):
        if stream.mode == "agent" or stream.events_named("workflow_paused"):
            continue
        parts = [event.get("answer") for event in stream.events()]
        parts += [event["data"]["text"] for event in stream.events_named("text_chunk")]
        assert streamed(stream) == visible("".join(filter(None, parts))) + produced(stream), stream.label


def produced(stream: Recording) -> str:
    """Return the links to the files that an app without a graph made, which follow its text."""
    files = [event for event in stream.events_named("message_file") if event.get("belongs_to") == "assistant"]
    return "".join(f"\n\n![{file['type']}]({file['url']})" for file in files)


def test_an_agents_closing_repetition_is_left_out() -> None:
    """In 1.16, an agent's last ``message`` repeats the text of all its ``agent_message`` events."""
    repeated = 0
    for stream in streams("dify-1.16.1", "dify-1.16.1-main"):
        if stream.mode != "agent":
            continue
        deltas = "".join(event["answer"] for event in stream.events_named("agent_message"))
        whole = [event["answer"] for event in stream.events_named("message")]
        if whole and deltas:
            repeated += 1
            assert whole == [deltas], stream.label
            assert streamed(stream) == visible(deltas).lstrip("\n"), stream.label
    assert repeated == 13


@pytest.mark.parametrize("folder", VERSIONS)
def test_usage_is_what_dify_counted(folder: str) -> None:
    for stream in streams(folder):
        if failed(stream):
            continue
        ends = stream.events_named("message_end")
        nodes = [event["data"]["outputs"] or {} for event in stream.events_named("node_finished") if is_llm(event)]
        usages = [node["usage"] for node in nodes if "usage" in node]
        if ends:
            assert usage(stream) == counted([ends[-1]["metadata"]["usage"]]), stream.label
        if usages:
            assert usage(stream) == counted(usages), stream.label
        if not ends and not usages:
            runs = [event["data"] for event in stream.events_named("workflow_finished")]
            counts = [run["total_tokens"] for run in runs if run["status"] != "stopped"]
            estimated = stream.expected()["answer"]["dify"].get("usage_estimated", False)
            assert estimated is (counts == []), stream.label
            assert estimated or usage(stream) == [0, *counts, *counts], stream.label


@pytest.mark.parametrize("folder", VERSIONS[:3])
def test_reasoning_is_what_dify_separated(folder: str) -> None:
    """A node that separates reasoning repeats it in its outputs, however the stream transports it."""
    compared = 0
    for stream in streams(folder):
        for event in stream.events_named("node_finished"):
            if reasoning := (event["data"]["outputs"] or {}).get("reasoning_content"):
                compared += 1
                assert stream.expected()["answer"]["reasoning_content"].strip() == reasoning, stream.label
    assert compared >= 1


def is_llm(event: Json) -> bool:
    return bool(event["data"]["node_type"] == "llm")


def test_a_chatflow_of_1_13_has_usage_without_message_end() -> None:
    flows = [stream for stream in streams("dify-1.13.0") if stream.mode == "advanced-chat"]
    assert not any(stream.events_named("message_end") for stream in flows)
    assert usage(named("dify-1.13.0", "chatflow-llm-stream-1")) == [12, 38, 50]
    counted_by_nodes = [stream for stream in flows if not failed(stream) and usage(stream)]
    assert len(counted_by_nodes) >= 15


@pytest.mark.parametrize("folder", VERSIONS)
def test_ids_are_those_of_the_stream(folder: str) -> None:
    for stream in streams(folder):
        if failed(stream):
            continue
        ids = stream.expected()["answer"]["dify"]
        for name in ("conversation_id", "message_id", "task_id", "workflow_run_id"):
            values = {event[name] for event in stream.events() if event.get(name)}
            assert {ids[name]} == values if name in ids else not values or stream.mode == "workflow", (
                stream.label,
                name,
            )


@pytest.mark.parametrize("folder", VERSIONS)
def test_system_prompts_are_not_exposed(folder: str) -> None:
    """Node events contain the whole prompt; only the echoing model may repeat it."""
    for stream in streams(folder):
        for event in stream.events_named("node_finished"):
            prompts = (event["data"].get("process_data") or {}).get("prompts") or []
            expected = json.dumps(stream.expected(), ensure_ascii=False)
            for prompt in prompts:
                if prompt["role"] == "system" and "ECHO" not in expected:
                    assert prompt["text"] not in expected, stream.label


def test_citations_are_those_that_dify_retrieved() -> None:
    cited = 0
    for stream in streams():
        for end in stream.events_named("message_end"):
            resources = end["metadata"].get("retriever_resources")
            if resources:
                cited += 1
                assert stream.expected()["answer"]["dify"]["retriever_resources"] == resources, stream.label
    assert cited == 3


@pytest.mark.parametrize("folder", ["dify-1.11.2", "dify-1.13.0", "dify-1.16.1"])
def test_a_file_produced_by_an_app_is_listed_once(folder: str) -> None:
    """Dify links to it in the text and lists it again with another signature."""
    stream = named(folder, "chatflow-fileout-stream")
    (file,) = stream.expected()["answer"]["dify"]["files"]
    (end,) = (stream.events_named("message_end") or stream.events_named("workflow_finished"))[-1:]
    (listed,) = end["files"] if "files" in end else end["data"]["files"]
    assert (file["type"], file["filename"], file["mime_type"], file["size"]) == (
        listed["type"],
        listed["filename"],
        listed["mime_type"],
        listed["size"],
    )
    assert streamed(stream).count(file["filename"]) == 1
    assert streamed(stream).count("/files/tools/") == 1


def test_a_users_own_file_is_not_an_answer() -> None:
    """Since 1.16, ``message_end`` also lists the files that the user sent."""
    stream = named("dify-1.16.1", "chat-file-local-doc")
    assert stream.events_named("message_end")[0]["files"]
    assert "files" not in stream.expected()["answer"]["dify"]


# The scripted model


TEXT_BY_KEYWORD = {
    "THINK": "The final answer is 42.",
    "EMPTY": "",
    "TOOL:current_time please": re.compile(r"tool said: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
}
THOUGHT = "Let me reason about this.\nStep 1 & 2 <b>.\n"
PLAIN_APPS = (
    "chat-plain",
    "chat",
    "chat-limit1",
    "chat-tiny-context",
    "chatflow",
    "workflow",
    "completion",
    "agent-new",
)
"""The apps that pass the question to the model and return its answer unchanged."""


def question_text(recording: Recording) -> str:
    return str(recording.request_json.get("query") or (recording.request_json.get("inputs") or {}).get("query") or "")


def plain_streams(keyword: str) -> list[Recording]:
    """Return the successful streams of plain apps whose question starts with ``keyword``."""
    return [
        stream
        for stream in streams()
        if stream.request["app"] in PLAIN_APPS and question_text(stream).startswith(keyword) and not failed(stream)
    ]


def test_the_model_repeats_the_text_after_say() -> None:
    found = plain_streams("SAY<<")
    assert len(found) == 54
    for stream in found:
        wanted = re.match(r"SAY<<(.*?)>>", question_text(stream))
        assert wanted is not None
        assert streamed(stream) == wanted[1], stream.label


@pytest.mark.parametrize("keyword", TEXT_BY_KEYWORD)
def test_the_model_answers_keywords_with_their_texts(keyword: str) -> None:
    found = [stream for stream in streams() if question_text(stream) == keyword]
    assert len(found) >= 3
    for stream in found:
        wanted = TEXT_BY_KEYWORD[keyword]
        text = streamed(stream)
        assert wanted.fullmatch(text) if isinstance(wanted, re.Pattern) else text == wanted, stream.label
        if keyword == "THINK":
            assert stream.expected()["answer"]["reasoning_content"].rstrip() == THOUGHT.rstrip(), stream.label


def test_the_model_counts() -> None:
    found = plain_streams("LONG:")
    assert {stream.mode for stream in found} == {"chat", "advanced-chat", "agent"}
    for stream in found:
        size = int(question_text(stream).removeprefix("LONG:").split()[0])
        assert streamed(stream) == "".join(f"L{number:05} " for number in range(size // 7 + 1))[:size], stream.label


def test_the_model_ticks() -> None:
    found = [stream for stream in streams() if question_text(stream).startswith("SLOW:")]
    assert len(found) >= 50
    for stream in found:
        size = int(question_text(stream).split(":")[1])
        ticks = "".join(f"tick {number} " for number in range(1, size + 1))
        assert ticks.startswith(streamed(stream)), stream.label
        stopped = stream.request.get("stop_after_s") is not None
        if not stopped and not failed(stream):
            assert streamed(stream) == ticks, stream.label


def test_text_in_every_script_is_unchanged() -> None:
    """That includes emoji of several code points, combining accents, and separators at which Python splits lines."""
    found = [stream for stream in streams() if question_text(stream) == "CJK"]
    assert {stream.mode for stream in found} == {"chat", "advanced-chat", "agent"}
    texts = {streamed(stream) for stream in found}
    assert len(texts) == 1
    (text,) = texts
    for part in ("你好，世界！", "😀👨\u200d👩\u200d👧\u200d👦", "é", "日本語テキスト", "\u2028line-sep\u2029"):
        assert part in text


def test_the_model_echoes_the_question() -> None:
    compared = 0
    for stream in streams():
        text = streamed(stream)
        if failed(stream) or stream.mode not in ("chat", "advanced-chat") or not text.startswith("ECHO {"):
            continue
        if question_text(stream).endswith(" chars>"):  # the recorder cut a large question out
            continue
        compared += 1
        echo = json.loads(text.removeprefix("ECHO "))
        contents = [str(content) for role, content in echo["messages"] if role == "user"]
        assert any(question_text(stream)[:100] in content for content in contents), stream.label
    assert compared == 81


# The peculiarities that the recordings cover


def test_a_chat_of_1_11_with_files_sends_its_text_in_message_file_events() -> None:
    stream = named("dify-1.11.2", "chat-file-local-doc")
    assert not stream.events_named("message")
    assert "".join(event["answer"] for event in stream.events_named("message_file")) == streamed(stream)
    assert len(streamed(stream)) > 100
    assert "files" not in stream.expected()["answer"]["dify"]


def test_message_end_and_workflow_finished_come_in_either_order() -> None:
    def order(folder: str) -> list[str]:
        stream = named(folder, "chatflow-llm-stream-1")
        return [event["event"] for event in stream.events_named("message_end", "workflow_finished")]

    assert order("dify-1.11.2") == ["workflow_finished", "message_end"]
    assert order("dify-1.13.0") == ["workflow_finished"]
    assert order("dify-1.16.1") == ["message_end", "workflow_finished"]


def test_a_moderated_question_is_a_success_although_its_run_failed() -> None:
    stream = named("dify-1.16.1-main", "chatflow-moderation-input-stream")
    run = finished(stream)
    assert run is not None
    assert run["status"] == "failed"
    assert streamed(stream) == "PRESET INPUT BLOCK"
    assert stream.expected()["answer"]["finish_reason"] == "stop"


def test_the_text_of_a_retried_node_appears_once() -> None:
    for folder in VERSIONS[:3]:
        stream = named(folder, "chatflow-retry-pre")
        assert stream.events_named("node_retry")
        assert streamed(stream) == "after retry ok"


def test_a_paused_run_answers_with_its_form() -> None:
    stream = named("dify-1.16.1", "human-pause-4")
    (pause,) = stream.events_named("workflow_paused")
    (reason,) = pause["data"]["reasons"]
    assert reason["form_content"].replace("{{#$output.note#}}", "[note]") in streamed(stream)
    assert all(action["title"] in streamed(stream) for action in reason["actions"])
    assert stream.expected()["answer"]["finish_reason"] == "stop"


def test_a_stream_without_a_terminal_event_is_an_error() -> None:
    cut = [stream for stream in streams() if stream.name.startswith("disconnect-") and "then" not in stream.name]
    assert len(cut) == 12
    for stream in cut:
        error = failed(stream)
        assert error is not None
        assert error["code"] == "upstream_incomplete"
        assert not any("finish_reason" in chunk for chunk in stream.expected()["stream"])


@pytest.mark.parametrize("folder", VERSIONS)
def test_only_an_early_failure_sets_the_status(folder: str) -> None:
    for stream in streams(folder):
        *chunks, last = stream.expected()["stream"]
        if "error" in last:
            assert (last["status"] is None) == bool(chunks), stream.label
            status = stream.expected()["answer"]["status"]
            assert last["status"] in (None, status), stream.label


def test_every_stream_and_refusal_has_an_expected_file() -> None:
    for folder in VERSIONS:
        for recording in recordings(folder):
            assert recording.has_expected == (recording.is_stream or recording.is_refusal), recording.label
