"""The expected answers, held against what the proxy did not write.

``test_replay`` shows that the proxy gives what stands in ``NAME.expected.json``; here that is compared with Dify's own
accounts of the same turns (whole answers, message lists, stored runs, the outputs and token counts inside a stream) and
with what the scripted model beneath the recorded Difys does on its keywords.
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
    """A text without its reasoning."""
    return re.sub(r"<think>.*?</think>\n*", "", text, flags=re.DOTALL)


def streamed(recording: Recording) -> str:
    """The expected deltas, added up; also of a stream that broke off."""
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
    """The data of ``workflow_finished``."""
    events = recording.events_named("workflow_finished")
    return events[-1]["data"] if events else None


# The blocking twin of the same question


def question(recording: Recording) -> tuple[str, ...]:
    asked = {name: value for name, value in recording.asked.items() if name not in _NOT_ASKED}
    return recording.folder, recording.request["app"], recording.request["path"], json.dumps(asked, sort_keys=True)


_NOT_ASKED = ("response_mode", "auto_generate_name", "user", "_note")


def test_answers_are_those_of_the_blocking_twins() -> None:
    twins = {question(recording): recording for recording in select(lambda each: each.is_blocking_answer)}
    pairs = [(stream, twins[question(stream)]) for stream in streams() if question(stream) in twins]
    for stream, twin in pairs:
        told = twin.json()
        if told.get("data", {}).get("error"):
            error = failed(stream)
            assert error is not None, stream.label
            assert error["message"].removesuffix(".").endswith(told["data"]["error"].removesuffix(".")), stream.label
        elif told.get("event") == "workflow_paused":
            assert streamed(stream).startswith(told["data"]["answer"] if "answer" in told["data"] else told["answer"])
        elif stream.mode == "workflow":
            assert streamed(stream) == rendered(told["data"]["outputs"]), stream.label
        else:
            assert unsigned(streamed(stream)) == unsigned(visible(told["answer"])), stream.label
            assert usage(stream) == counted([told["metadata"]["usage"]]), stream.label
    assert len(pairs) >= 52
    assert {stream.mode for stream, _ in pairs} == {"chat", "advanced-chat", "completion", "workflow"}


def rendered(outputs: Json) -> str:
    """A workflow's outputs as its text chunks show them: in order, a line break between, lists as Markdown."""

    def text(value: Any) -> str:
        if isinstance(value, list):
            return "\n".join(f"- {item}" for item in value)
        return value if isinstance(value, str) else json.dumps(value)

    return "\n".join(text(value) for value in outputs.values())


def unsigned(text: str) -> str:
    """A text whose links to Dify's files say neither which file nor who may read it, as both differ in each run."""
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
            if failed(stream):  # the recorder left; what Dify stored is empty or goes on where the stream broke off
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


# What a stream says of itself


@pytest.mark.parametrize("folder", VERSIONS)
def test_answers_are_the_outputs_of_their_runs(folder: str) -> None:
    compared = 0
    for stream in streams(folder):
        run = finished(stream)
        if run is None or run["status"] not in GOOD:
            continue
        compared += 1
        text = run["outputs"].get("answer", "") if stream.mode == "advanced-chat" else rendered(run["outputs"])
        assert unsigned(streamed(stream)) == unsigned(visible(text)), stream.label
    assert compared >= (3 if folder.endswith("main") else 26)


@pytest.mark.parametrize("folder", VERSIONS)
def test_answers_are_the_parts_that_dify_sent(folder: str) -> None:
    """Nothing is lost or said twice in an app that does not repeat itself."""
    for stream in streams(folder):
        if stream.mode == "agent" or stream.events_named("workflow_paused"):
            continue
        parts = [event.get("answer") for event in stream.events()]
        parts += [event["data"]["text"] for event in stream.events_named("text_chunk")]
        assert streamed(stream) == visible("".join(filter(None, parts))), stream.label


def test_an_agents_closing_repetition_is_left_out() -> None:
    """The last ``message`` of the agent of 1.16 holds all that its ``agent_message`` events said."""
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
        told = [node["usage"] for node in nodes if "usage" in node]
        if ends:
            assert usage(stream) == counted([ends[-1]["metadata"]["usage"]]), stream.label
        if told:
            assert usage(stream) == counted(told), stream.label
        if not ends and not told:
            assert usage(stream) is None, stream.label


@pytest.mark.parametrize("folder", VERSIONS[:3])
def test_reasoning_is_what_dify_told_apart(folder: str) -> None:
    """A node that separates reasoning says it in its outputs, however the stream brought it."""
    told = 0
    for stream in streams(folder):
        for event in stream.events_named("node_finished"):
            if reasoning := (event["data"]["outputs"] or {}).get("reasoning_content"):
                told += 1
                assert stream.expected()["answer"]["reasoning_content"].strip() == reasoning, stream.label
    assert told >= 1


def is_llm(event: Json) -> bool:
    return bool(event["data"]["node_type"] == "llm")


def test_a_chatflow_of_1_13_tells_its_usage_though_no_message_end_does() -> None:
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
            told = {event[name] for event in stream.events() if event.get(name)}
            assert {ids[name]} == told if name in ids else not told or stream.mode == "workflow", (stream.label, name)


@pytest.mark.parametrize("folder", VERSIONS)
def test_no_system_prompt_gets_out(folder: str) -> None:
    """Node events hold the whole prompt; only the echoing model may say it."""
    for stream in streams(folder):
        for event in stream.events_named("node_finished"):
            prompts = (event["data"].get("process_data") or {}).get("prompts") or []
            told = json.dumps(stream.expected(), ensure_ascii=False)
            for prompt in prompts:
                if prompt["role"] == "system" and "ECHO" not in told:
                    assert prompt["text"] not in told, stream.label


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
def test_a_file_that_an_app_made_is_named_once(folder: str) -> None:
    """Dify links to it in the text, and lists it again under a signature of its own."""
    stream = named(folder, "chatflow-fileout-stream")
    (file,) = stream.expected()["answer"]["dify"]["files"]
    (told,) = (stream.events_named("message_end") or stream.events_named("workflow_finished"))[-1:]
    (listed,) = told["files"] if "files" in told else told["data"]["files"]
    assert (file["type"], file["filename"], file["mime_type"], file["size"]) == (
        listed["type"],
        listed["filename"],
        listed["mime_type"],
        listed["size"],
    )
    assert streamed(stream).count(file["filename"]) == 1
    assert streamed(stream).count("/files/tools/") == 1


def test_a_users_own_file_is_not_an_answer() -> None:
    """From 1.16 on ``message_end`` lists what the user sent."""
    stream = named("dify-1.16.1", "chat-file-local-doc")
    assert stream.events_named("message_end")[0]["files"]
    assert "files" not in stream.expected()["answer"]["dify"]


# The scripted model


SAID_BY_KEYWORD = {
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
"""The apps that put the question to the model and say what it says."""


def asked_text(recording: Recording) -> str:
    return str(recording.asked.get("query") or (recording.asked.get("inputs") or {}).get("query") or "")


def plainly(keyword: str) -> list[Recording]:
    """The streams of plain apps that were asked ``keyword`` and answered."""
    return [
        stream
        for stream in streams()
        if stream.request["app"] in PLAIN_APPS and asked_text(stream).startswith(keyword) and not failed(stream)
    ]


def test_the_model_says_what_it_is_told_to_say() -> None:
    told = plainly("SAY<<")
    assert len(told) == 54
    for stream in told:
        wanted = re.match(r"SAY<<(.*?)>>", asked_text(stream))
        assert wanted is not None
        assert streamed(stream) == wanted[1], stream.label


@pytest.mark.parametrize("keyword", SAID_BY_KEYWORD)
def test_the_model_says_what_its_keyword_stands_for(keyword: str) -> None:
    told = [stream for stream in streams() if asked_text(stream) == keyword]
    assert len(told) >= 3
    for stream in told:
        wanted = SAID_BY_KEYWORD[keyword]
        said = streamed(stream)
        assert wanted.fullmatch(said) if isinstance(wanted, re.Pattern) else said == wanted, stream.label
        if keyword == "THINK":
            assert stream.expected()["answer"]["reasoning_content"].rstrip() == THOUGHT.rstrip(), stream.label


def test_the_model_counts() -> None:
    told = plainly("LONG:")
    assert {stream.mode for stream in told} == {"chat", "advanced-chat", "agent"}
    for stream in told:
        size = int(asked_text(stream).removeprefix("LONG:").split()[0])
        assert streamed(stream) == "".join(f"L{number:05} " for number in range(size // 7 + 1))[:size], stream.label


def test_the_model_ticks() -> None:
    told = [stream for stream in streams() if asked_text(stream).startswith("SLOW:")]
    assert len(told) >= 50
    for stream in told:
        size = int(asked_text(stream).split(":")[1])
        ticks = "".join(f"tick {number} " for number in range(1, size + 1))
        assert ticks.startswith(streamed(stream)), stream.label
        stopped = stream.request.get("stop_after_s") is not None
        if not stopped and not failed(stream):
            assert streamed(stream) == ticks, stream.label


def test_every_script_survives() -> None:
    """Emoji made of several code points, combining accents, and line separators that split lines in Python."""
    told = [stream for stream in streams() if asked_text(stream) == "CJK"]
    assert {stream.mode for stream in told} == {"chat", "advanced-chat", "agent"}
    texts = {streamed(stream) for stream in told}
    assert len(texts) == 1
    (text,) = texts
    for part in ("你好，世界！", "😀👨\u200d👩\u200d👧\u200d👦", "é", "日本語テキスト", "\u2028line-sep\u2029"):
        assert part in text


def test_the_model_echoes_what_it_was_asked() -> None:
    compared = 0
    for stream in streams():
        text = streamed(stream)
        if failed(stream) or stream.mode not in ("chat", "advanced-chat") or not text.startswith("ECHO {"):
            continue
        if asked_text(stream).endswith(" chars>"):  # the recorder cut a large question out
            continue
        compared += 1
        echo = json.loads(text.removeprefix("ECHO "))
        told = [str(content) for role, content in echo["messages"] if role == "user"]
        assert any(asked_text(stream)[:100] in words for words in told), stream.label
    assert compared == 81


# What the recordings are here for


def test_a_chat_of_1_11_with_files_says_its_text_in_message_file_events() -> None:
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


def test_a_moderated_question_is_a_success_though_its_run_failed() -> None:
    stream = named("dify-1.16.1-main", "chatflow-moderation-input-stream")
    run = finished(stream)
    assert run is not None
    assert run["status"] == "failed"
    assert streamed(stream) == "PRESET INPUT BLOCK"
    assert stream.expected()["answer"]["finish_reason"] == "stop"


def test_a_retried_node_says_its_text_once() -> None:
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


def test_a_stream_that_just_ends_is_no_answer() -> None:
    cut = [stream for stream in streams() if stream.name.startswith("disconnect-") and "then" not in stream.name]
    assert len(cut) == 12
    for stream in cut:
        error = failed(stream)
        assert error is not None
        assert error["code"] == "upstream_incomplete"
        assert not any("finish_reason" in chunk for chunk in stream.expected()["stream"])


@pytest.mark.parametrize("folder", VERSIONS)
def test_an_early_failure_is_a_status_and_a_late_one_is_not(folder: str) -> None:
    for stream in streams(folder):
        *said, last = stream.expected()["stream"]
        if "error" in last:
            assert (last["status"] is None) == bool(said), stream.label
            status = stream.expected()["answer"]["status"]
            assert last["status"] in (None, status), stream.label


def test_an_expectation_stands_beside_every_stream_and_refusal() -> None:
    for folder in VERSIONS:
        for recording in recordings(folder):
            assert recording.has_expected == (recording.is_stream or recording.is_refusal), recording.label
