"""Streams that broke off, and the events of their runs that are read instead."""

from __future__ import annotations

import pytest

from openai_dify_proxy.errors import ProxyError, RateLimited, StreamCut
from openai_dify_proxy.events import Event, ReasoningDelta, StepChanged, TurnFailed, TurnFinished
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.wire.dify import Mode
from tests.dify_streams import (
    PING,
    Json,
    message,
    message_end,
    message_replace,
    node,
    reasoning_chunk,
    stream,
    text_chunk,
    usage,
    workflow_finished,
    workflow_paused,
    workflow_started,
)
from tests.recordings.archive import named

BEGIN: list[Json | bytes] = [PING, workflow_started(), message("one two ", "llm")]
DONE = workflow_finished(outputs={"answer": "one two three four"})


def resumed(first: bytes, *later: bytes, mode: Mode = "advanced-chat") -> tuple[Answer, list[Event], DifyEventDecoder]:
    """Return the answer and the events of a stream that broke off, and of those that were read instead."""
    decoder = DifyEventDecoder(mode)
    events: list[Event] = []
    for body in (first, *later):
        if events:
            failure = events.pop()
            assert isinstance(failure, TurnFailed)
            assert isinstance(failure.error, StreamCut)
            assert decoder.resumable
            decoder.resume()
        events += [*decoder.feed(body), *decoder.finish()]
    answer = Answer()
    answer.add(events)
    return answer, events, decoder


def text_of(*later: Json | bytes, begin: list[Json | bytes] = BEGIN) -> str:
    answer, events, decoder = resumed(stream(*begin), stream(*later))
    assert isinstance(events[-1], TurnFinished)
    assert decoder.concluded
    return answer.text


def error_of(*later: Json | bytes, begin: list[Json | bytes] = BEGIN) -> ProxyError:
    answer, _, _ = resumed(stream(*begin), stream(*later))
    assert answer.error is not None
    return answer.error


def test_a_recorded_workflow_is_completed() -> None:
    """The client closed the first stream after two seconds, and read on 4 s later."""
    first, second = (named("dify-1.16.1", f"workflow-reconnect-{name}") for name in ("1", "2-events"))
    assert second.request["path"].startswith("/workflow/")
    answer, events, _ = resumed(first.body, second.body, mode="workflow")
    assert answer.text == second.events()[-1]["data"]["outputs"]["text"]
    assert answer.text == "".join(f"tick {number} " for number in range(1, 25))
    assert isinstance(events[-1], TurnFinished)


def test_the_rest_is_that_of_the_outputs() -> None:
    """Between the two streams, text was lost."""
    assert text_of(PING, message("four", "llm"), message_end(usage(1, 2)), DONE) == "one two three four"
    assert text_of(DONE) == "one two three four"
    assert text_of(workflow_finished(outputs={"answer": "one two "})) == "one two "
    assert text_of(DONE, begin=[workflow_started()]) == "one two three four"


def test_usage_comes_from_the_second_stream() -> None:
    _, events, _ = resumed(stream(*BEGIN), stream(message_end(usage(9, 2)), DONE))
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].usage is not None
    assert events[-1].usage.total_tokens == 11


def test_a_stream_may_break_off_twice() -> None:
    answer, _, _ = resumed(stream(*BEGIN), stream(PING, message("three ", "llm")), stream(DONE))
    assert answer.text == "one two three four"


def test_the_rest_may_begin_or_end_reasoning() -> None:
    outputs = {"answer": "<think>Hm.</think>one"}
    begin = (workflow_started(), message("<think>H", "llm"))
    answer, events, _ = resumed(stream(*begin), stream(workflow_finished(outputs=outputs)))
    assert (answer.text, answer.reasoning) == ("one", "Hm.")
    assert any(isinstance(event, ReasoningDelta) for event in events)


def test_other_events_about_text_are_ignored() -> None:
    retried = node("node_retry", "llm", "llm")
    ended = node("node_finished", "llm", "llm")
    assert text_of(reasoning_chunk("Hm."), retried, message("one", "llm"), ended, DONE) == "one two three four"


def test_a_moderation_replaces_the_text() -> None:
    """The outputs hold the text before the moderation."""
    assert text_of(message_replace("Withheld."), message_end(usage(0, 0)), DONE) == "Withheld."


@pytest.mark.parametrize(
    "later",
    [
        pytest.param([workflow_finished(outputs={"answer": "Something else."})], id="another text"),
        pytest.param([workflow_finished(outputs={})], id="no text"),
        pytest.param([workflow_finished("stopped", outputs={"answer": "one"})], id="less text"),
        pytest.param([workflow_paused(answer="Something else.")], id="pause with another text"),
    ],
)
def test_text_that_cannot_be_completed_is_an_error(later: list[Json]) -> None:
    decoder = resumed(stream(*BEGIN), stream(*later))[2]
    assert isinstance(error_of(*later), StreamCut)
    assert not decoder.resumable


def test_a_recorded_snapshot_of_a_running_chatflow_is_completed() -> None:
    recording = named("dify-1.16.1", "chatflow-reconnect-4-snapshot")
    whole = recording.events()[-1]["data"]["outputs"]["answer"]
    answer, events, _ = resumed(stream(workflow_started(), message(whole[:7], "llm")), recording.body)
    assert answer.text == whole
    assert isinstance(events[-1], TurnFinished)


@pytest.mark.parametrize("sent", ["", "Before ", "Before the pause. "])
def test_a_recorded_snapshot_of_a_paused_chatflow_has_the_text_and_the_form(sent: str) -> None:
    begin = [workflow_started(), *([message(sent, "llm")] if sent else [])]
    answer, events, decoder = resumed(stream(*begin), named("dify-1.16.1", "human-events-snapshot-paused").body)
    assert answer.text == "Before the pause. \n\nApprove ship it? [note]\n\n[Yes] · [No]"
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].human_input is not None
    assert events[-1].human_input.characters == len("Before the pause. ")
    assert decoder.concluded


def test_a_pause_in_live_events_needs_a_snapshot() -> None:
    paused = stream(PING, message("three ", "llm"), workflow_paused())
    answer, events, _ = resumed(stream(*BEGIN), paused, stream(PING, workflow_paused(answer="one two three ")))
    assert answer.text == "one two three "
    assert isinstance(events[-1], TurnFinished)


def test_no_event_has_the_text_of_a_workflow_before_its_pause() -> None:
    begin = (workflow_started(), text_chunk("one "))
    answer, _, decoder = resumed(stream(*begin), stream(workflow_paused()), mode="workflow")
    assert isinstance(answer.error, StreamCut)
    assert not decoder.resumable


def test_a_snapshot_repeats_no_steps() -> None:
    decoder = DifyEventDecoder("advanced-chat", progress=True)
    nodes = [node("node_started", id="n-1"), node("node_finished", id="n-1", status="succeeded")]
    first = [*decoder.feed(stream(workflow_started(), *nodes)), *decoder.finish()]
    assert [event.state for event in first if isinstance(event, StepChanged)] == ["started", "succeeded"]
    decoder.resume()
    later = decoder.feed(
        stream(workflow_started(), message_replace("", reason=""), *nodes, node("node_started", id="n-2"))
    )
    assert [event.state for event in later if isinstance(event, StepChanged)] == ["started"]


def test_steps_without_an_id_are_all_listed() -> None:
    nodes = [node("node_started", id=None), node("node_started", id=None)]
    events = DifyEventDecoder("advanced-chat", progress=True).feed(stream(workflow_started(), *nodes))
    assert [event.state for event in events if isinstance(event, StepChanged)] == ["started", "started"]


def test_a_failed_run_is_an_error() -> None:
    failed = workflow_finished("failed", error="[openai] Rate Limit Error, slow down")
    assert isinstance(error_of(failed), RateLimited)


def test_a_workflow_with_several_outputs_cannot_be_completed() -> None:
    begin = (workflow_started(), text_chunk("one "))
    answer, _, _ = resumed(
        stream(*begin), stream(workflow_finished(outputs={"a": "one two", "b": "three"})), mode="workflow"
    )
    assert isinstance(answer.error, StreamCut)


def test_pings_do_not_start_the_next_stream() -> None:
    decoder = DifyEventDecoder("advanced-chat")
    decoder.feed(stream(*BEGIN))
    decoder.finish()
    decoder.resume()
    decoder.feed(PING)
    assert not decoder.started
    decoder.feed(stream(workflow_started()))
    assert decoder.started
