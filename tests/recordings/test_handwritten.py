"""Streams written by hand in Dify's format, for cases that no recording covers, and the answers that a client reads."""

from __future__ import annotations

import pytest

from tests.deltas import join_chunks
from tests.recordings.archive import HANDMADE, Json, named, streams
from tests.recordings.replay import MANNERS, Manner, replaying
from tests.recordings.sdk_answers import differences, read_answer, read_stream, text_of


@pytest.mark.parametrize("manner", MANNERS)
async def test_handmade_streams_are_as_expected(manner: Manner) -> None:
    recordings = streams(HANDMADE)
    async with replaying(recordings, manner) as replay:
        got = await replay.read_json(read_stream, recordings)
        answers = await replay.read_json(read_answer, recordings)
    found = differences(
        {label: join_chunks(chunks) for label, chunks in got.items()},
        {recording.label: join_chunks(recording.expected()["stream"]) for recording in recordings},
    )
    found += differences(answers, {recording.label: recording.expected()["answer"] for recording in recordings})
    assert not found


def answer(name: str) -> Json:
    whole: Json = named(HANDMADE, name).expected()["answer"]
    return whole


def streamed(name: str) -> str:
    return text_of(named(HANDMADE, name).expected()["stream"])


RETRIED = "this text is streamed and then it ends."


@pytest.mark.parametrize("name", ["retry-after-partial-answer", "retry-in-a-workflow"])
def test_a_retried_node_repeats_no_text(name: str) -> None:
    assert streamed(name) == answer(name)["content"] == RETRIED
    assert answer(name)["finish_reason"] == "stop"


def test_the_text_of_a_retried_node_replaces_the_first_text() -> None:
    """A stream cannot take back text that it has sent; a complete answer can."""
    assert answer("retry-with-another-answer")["content"] == "A quite different answer."
    assert streamed("retry-with-another-answer").endswith("A quite different answer.")


@pytest.mark.parametrize("name", ["output-moderation", "output-moderation-1.11"])
def test_a_moderated_answer_is_not_undone_by_the_outputs_of_its_run(name: str) -> None:
    assert answer(name)["content"] == "PRESET OUTPUT BLOCK"
    assert answer(name)["finish_reason"] == "content_filter"
    assert answer(name)["dify"]["replaced"] is True
    assert streamed(name).endswith("PRESET OUTPUT BLOCK")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("annotation-hit-chatflow", "This is the ANNOTATED answer."),  # although the run reports a failure
        ("annotation-hit-chat", "ANNOTATED."),
        ("crlf-framing", "Hello wörld"),
        ("chat-0.15", "你好，\u2028“wörld” 😀"),
        ("chatflow-0.15", "你好, flow"),
        ("agent-closing-message-adds", "The answer is forty-two."),
        ("a-new-kind-of-event", "Hello"),
        ("tts-between-words", "Hello"),
        ("think-cut-anywhere", "A < B and </b> <this> is text"),
    ],
)
def test_the_text_is_whole(name: str, text: str) -> None:
    assert streamed(name) == answer(name)["content"] == text
    assert answer(name)["finish_reason"] == "stop"


def test_reasoning_is_recognized_wherever_its_tags_are_split() -> None:
    assert answer("think-cut-anywhere")["reasoning_content"] == "reason"


def test_an_error_without_a_code_is_an_error() -> None:
    assert answer("error-without-code")["status"] == 502
    assert "An error occurred in the publisher" in answer("error-without-code")["error"]["message"]
    assert answer("error-without-anything")["status"] == 502
    *_, last = named(HANDMADE, "error-without-anything").expected()["stream"]
    assert last["status"] is None, "the error follows the first text"


def test_a_node_reports_that_its_model_was_cut_off() -> None:
    assert answer("length-is-told-by-the-node")["finish_reason"] == "length"


def test_a_relative_link_is_completed() -> None:
    link = "http://dify.test/files/tools/0d1e.png?timestamp=1&nonce=2&sign=3"
    assert answer("file-made-by-a-tool")["dify"]["files"] == [{"url": link, "type": "image"}]
    assert f"![image]({link})" in streamed("file-made-by-a-tool")
