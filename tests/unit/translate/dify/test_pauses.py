"""Decode paused runs: their forms as text and as calls, and the rest of a run after a pause."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import (
    Event,
    FormAction,
    FormInput,
    HumanInput,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
)
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.forms import FormStyle
from openai_dify_proxy.translate.dify.pauses import PausedAt
from openai_dify_proxy.wire.dify import Mode
from tests.dify_streams import (
    OF_MESSAGE,
    OF_RUN,
    Json,
    message,
    message_end,
    message_replace,
    node,
    stream,
    workflow_finished,
    workflow_paused,
    workflow_started,
)
from tests.recordings.archive import named

FORM: Json = {
    "form_id": "f-1",
    "node_title": "Approve",
    "form_content": "Approve {{#$output.note#}}?",
    "inputs": [
        {"output_variable_name": "note", "type": "paragraph", "default": {"type": "constant", "value": "none"}},
        {"output_variable_name": "who", "type": "paragraph", "default": {"type": "variable", "selector": ["a", "b"]}},
        {"output_variable_name": "kind", "type": "select", "option_source": {"value": ["a"]}, "name": "x"},
        {"type": "paragraph"},
    ],
    "actions": [{"id": "ok", "title": "Approve"}, {"title": "No id"}, {"id": "no", "title": ""}],
    "form_token": "tok-1",
    "approval_channels": ["console"],
    "resolved_default_values": {"who": "Ann"},
    "expiration_time": 99,
}
TEXT = "Approve [note]?\n\n[Approve] · [no]"
READ = HumanInput(
    "tok-1",
    "Approve",
    "Approve {{#$output.note#}}?",
    (
        FormInput("note", "paragraph", "none", {}),
        FormInput("who", "paragraph", "Ann", {}),
        FormInput("kind", "select", None, {"option_source": {"value": ["a"]}}),
    ),
    (FormAction("ok", "Approve"), FormAction("no", "no")),
    ("console",),
    99,
    5,
)
IDS = TurnIds("t-1", "m-1", "c-1", "r-1")
RESUMED: Json = {"event": "workflow_started", **OF_MESSAGE, **OF_RUN, "data": {"reason": "resumption"}}


def decoded(*events: Json, mode: Mode = "advanced-chat", **options: Any) -> list[Event]:
    decoder = DifyEventDecoder(mode, **options)
    return [*decoder.feed(stream(*events)), *decoder.finish()]


def test_a_form_is_text() -> None:
    text, last = decoded(message("Hello"), workflow_paused(FORM))
    assert (text, last) == (TextDelta(f"Hello\n\n{TEXT}"), TurnFinished("stop", human_input=READ))


def test_a_form_is_a_call() -> None:
    text, started, arguments, finished, last = decoded(message("Hello"), workflow_paused(FORM), forms="call")
    assert (text, finished) == (TextDelta("Hello"), ToolCallFinished(0))
    assert started == ToolCallStarted(0, "call_hi_tok-1", "dify_human_input")
    assert isinstance(arguments, ToolCallDelta)
    assert json.decode(arguments.text) == {
        "token": "tok-1",
        "title": "Approve",
        "content": "Approve {{#$output.note#}}?",
        "inputs": [
            {"name": "note", "type": "paragraph", "default": "none"},
            {"name": "who", "type": "paragraph", "default": "Ann"},
            {"name": "kind", "type": "select", "default": None, "option_source": {"value": ["a"]}},
        ],
        "actions": [{"id": "ok", "title": "Approve"}, {"id": "no", "title": "no"}],
        "expires_at": 99,
        "approval_channels": ["console"],
    }
    assert last == TurnFinished("tool_calls", human_input=READ)


@pytest.mark.parametrize(
    ("token", "style"), [(None, "call"), ("a/b", "call"), ("t" * 129, "call"), ("tok-1", "closed")]
)
def test_a_form_that_cannot_be_answered_is_text(token: str | None, style: FormStyle) -> None:
    text, last = decoded(workflow_paused({**FORM, "form_token": token}), forms=style)
    assert isinstance(text, TextDelta)
    closed = "This form cannot be answered here, only through its approval channels in Dify: console."
    assert text.text == f"{TEXT}\n\n{closed}"
    assert isinstance(last, TurnFinished)
    assert last.human_input is not None
    assert (last.reason, last.human_input.token) == ("stop", None)


def test_of_several_forms_the_first_with_a_token_is_asked() -> None:
    closed, second = {**FORM, "form_token": None}, {**FORM, "form_token": "tok-2"}
    *_, last = decoded(workflow_paused(closed, second, FORM), forms="call")
    assert isinstance(last, TurnFinished)
    assert last.human_input is not None
    assert last.human_input.token == "tok-2"


# The rest of a run, whose first 7 characters an earlier turn has.

AT = PausedAt(IDS, 7)


def rest(*events: Json, **options: Any) -> list[Event]:
    return decoded(*events, paused=AT, **options)


def test_the_rest_streams_from_its_beginning() -> None:
    events = rest(RESUMED, message("Rest"), message_end(), workflow_finished(outputs={"answer": "Before.Rest"}))
    assert events == [TextDelta("Rest"), TurnFinished("stop")]


def test_the_rest_of_the_answer_is_taken_from_the_outputs() -> None:
    finished = workflow_finished(outputs={"answer": "Before.Rest"})
    assert rest(finished) == [TextDelta("Rest"), TurnFinished("stop")]
    assert rest(message("st"), finished) == [TextDelta("Rest"), TurnFinished("stop")]
    assert rest(RESUMED, finished) == [TextDelta("Rest"), TurnFinished("stop")]


def test_the_outputs_of_a_workflow_are_its_answer() -> None:
    finished = workflow_finished(outputs={"text": "All of it"})
    assert rest(RESUMED, finished, mode="workflow") == [TextDelta("All of it"), TurnFinished("stop")]


def test_a_retried_node_in_the_rest() -> None:
    retry = [message("Bad", "n"), node("node_retry", "n"), message("Good", "n")]
    events = rest(RESUMED, *retry, workflow_finished(outputs={"answer": "Before.Good"}))
    assert events == [TextDelta("Bad"), TextReplaced("Good", moderated=False), TurnFinished("stop", answer="Good")]


def test_the_rest_may_break_off_and_pause() -> None:
    decoder = DifyEventDecoder("advanced-chat", paused=AT)
    assert decoder.ids == IDS
    assert decoder.feed(stream(RESUMED, message("Re"))) == [TextDelta("Re")]
    (failed,) = decoder.finish()
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, StreamCut)
    assert decoder.resumable
    decoder.resume()
    last = decoder.feed(stream(message_end(), workflow_finished(outputs={"answer": "Before.Rest"})))
    assert [*last, *decoder.finish()] == [TextDelta("st"), TurnFinished("stop")]


@pytest.mark.parametrize("events", [[RESUMED, message("Rest")], [message("lost")]])
def test_a_run_pauses_again(events: list[Json]) -> None:
    text, last = rest(*events, workflow_paused(FORM))
    assert isinstance(text, TextDelta)
    assert text.text.removeprefix("Rest\n\n") == TEXT
    assert isinstance(last, TurnFinished)
    assert last.human_input is not None
    assert last.human_input.characters == 7 + 4 * (len(events) - 1)


def test_a_snapshot_that_breaks_off_is_read_again() -> None:
    body = named("dify-1.16.1", "human-events-snapshot-paused").body
    decoder = DifyEventDecoder("advanced-chat", paused=PausedAt(IDS, 18, shows_form=True))
    assert decoder.feed(body[: len(body) // 2]) == []
    (failed,) = decoder.finish()
    assert isinstance(failed, TurnFailed)
    assert decoder.resumable
    decoder.resume()
    shown, last = decoder.feed(body)
    assert isinstance(shown, TextDelta)
    assert shown.text.endswith("[Yes] · [No]")
    assert isinstance(last, TurnFinished)


@pytest.mark.parametrize("name", ["human-events-snapshot-paused", "human-events-after-stop"])
@pytest.mark.parametrize("style", ["text", "call"])
def test_a_snapshot_shows_the_form_again(name: str, style: FormStyle) -> None:
    decoder = DifyEventDecoder("advanced-chat", forms=style, paused=PausedAt(IDS, 18, shows_form=True))
    assert decoder.concluded  # the run is not this turn's to stop
    *shown, last = decoder.feed(named("dify-1.16.1", name).body)
    assert isinstance(last, TurnFinished)
    assert last.human_input is not None
    assert (last.human_input.characters, last.human_input.actions[0]) == (18, FormAction("yes", "Yes"))
    if style == "text":
        form = "Approve ship it? [note]\n\n[Yes] · [No]"
        assert shown == [TextDelta(f"This conversation waits for an answer to a form:\n\n{form}")]
    else:
        assert [type(event) for event in shown] == [ToolCallStarted, ToolCallDelta, ToolCallFinished]


def test_a_snapshot_of_a_run_that_has_ended() -> None:
    events = decoded(
        workflow_started(),
        message_replace("Before.", reason=""),
        workflow_finished(outputs={"answer": "Before.Rest"}),
        paused=PausedAt(IDS, 7, shows_form=True),
    )
    assert events == [TextDelta("Rest"), TurnFinished("stop")]
