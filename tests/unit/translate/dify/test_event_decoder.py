"""Decode Dify's streams in the event orders observed on 1.11.2, 1.13.0 and 1.16.1, with every kind of event."""

from __future__ import annotations

from typing import Any

import pytest

from demo.tests.recorded import recording
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import (
    AgentThoughtDelta,
    Citation,
    Citations,
    Event,
    FileProduced,
    FixedTextDelta,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.dify import event_decoder
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.wire.dify import Mode
from tests.deltas import join_events
from tests.dify_streams import (
    CONVERSATION,
    MESSAGE,
    PING,
    RUN,
    TASK,
    Json,
    agent_log,
    agent_message,
    agent_thought,
    error,
    message,
    message_end,
    message_file,
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

DIFY = "https://dify.example"
TOKENS = usage(9, 2, total_price="0.0001", currency="USD", latency=0.8)
COUNTED = Usage(9, 2, 11, "0.0001", "USD", 0.8)
ZEROS = usage(0, 0, total_price="0E-7", currency="USD")
LARGE = 20_000
"""Bytes of a stream; smaller ones are also decoded byte by byte."""


def decode(mode: Mode, *events: Json | bytes, **options: Any) -> list[Event]:
    """Decode a whole stream in small reads; check that one read gives the same events, adjacent deltas merged."""
    data = stream(*events)
    found = []
    for size in (1 if len(data) < LARGE else 1000, len(data)):
        decoder = DifyEventDecoder(mode, origin=DIFY, **options)
        got = [event for at in range(0, len(data), max(size, 1)) for event in decoder.feed(data[at : at + size])]
        got += decoder.finish()
        assert decoder.ended
        assert decoder.finish() == decoder.feed(stream(message("late"))) == []
        found.append(got)
    assert str(join_events(found[0])) == str(join_events(found[1]))
    return found[0]


def answer(mode: Mode, *events: Json | bytes, **options: Any) -> Answer:
    folded = Answer()
    folded.add(decode(mode, *events, **options))
    return folded


def failure(mode: Mode, *events: Json | bytes, **options: Any) -> ProxyError:
    last = decode(mode, *events, **options)[-1]
    assert isinstance(last, TurnFailed)
    return last.error


LLM_DONE = node(
    "node_finished", status="succeeded", outputs={"text": "Hello.", "usage": TOKENS, "finish_reason": "stop"}
)
LLM_FAILED = node("node_finished", status="failed", outputs=None, error="[scripted] Bad Request Error, boom")
NO_TERMINAL = "Workflow stream ended without a terminal event"

# Streams of successful turns, for every version: the app's mode, the stream, the usage.
GOOD: dict[str, tuple[Mode, list[Json | bytes], Usage | None]] = {
    "chat": ("chat", [message("Hel"), PING, message("lo."), message(""), message_end(TOKENS)], COUNTED),
    "chat 1.11, the user sent a file": (
        "chat",
        [message("Hel", event="message_file"), message("lo.", event="message_file"), message_end(TOKENS)],
        COUNTED,
    ),
    "chat, annotation hit or moderation of the question": (
        "chat",
        [*(message(character) for character in "Hello."), message_end(ZEROS)],
        Usage(0, 0, 0, "0E-7", "USD"),
    ),
    "completion": ("completion", [message("Hel"), message("lo."), message_end(TOKENS)], COUNTED),
    "agent-chat without tools": (
        "agent-chat",
        [
            agent_thought("1"),
            agent_message("Hel"),
            agent_message("lo."),
            agent_thought("1", "Hello."),
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "agent-chat with a tool": (
        "agent-chat",
        [
            agent_thought("1"),
            *[agent_message("")] * 3,
            agent_thought("1", tool="calc"),
            agent_thought("1", tool="calc", observation='{"calc": "42"}'),
            agent_thought("2"),
            agent_message("Hel"),
            agent_message("lo."),
            agent_thought("2", "Hello."),
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "agent of 1.16 repeats its answer": (
        "agent",
        [agent_thought("1"), agent_message("Hel"), agent_message("lo."), message("Hello."), message_end(TOKENS)],
        COUNTED,
    ),
    "agent of 1.16 with a tool": (
        "agent",
        [
            *[agent_thought("1", tool="calc")] * 2,
            agent_thought("1", tool="calc", observation="42"),
            agent_thought("2"),
            agent_message("Hello."),
            message("Hello."),
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "agent of 1.16 asks a person": (
        "agent",
        [*[agent_thought("1", tool="ask_human")] * 2, message("Hello."), message_end(TOKENS)],
        COUNTED,
    ),
    "chatflow 1.11": (
        "advanced-chat",
        [
            workflow_started(),
            node("node_started", "start", "start"),
            node("node_finished", "start", "start", status="succeeded", outputs={}),
            node("node_started"),
            message("Hel", "llm"),
            message("lo.", "llm"),
            LLM_DONE,
            workflow_finished(outputs={"answer": "Hello."}, total_tokens=11),
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "chatflow 1.13 never sends message_end": (
        "advanced-chat",
        [
            PING,
            workflow_started(),
            message("Hello.", "llm"),
            LLM_DONE,
            workflow_finished(outputs={"answer": "Hello."}, total_tokens=11),
        ],
        COUNTED,
    ),
    "chatflow 1.13 without a node that counts": (
        "advanced-chat",
        [PING, message("Hello."), workflow_finished(outputs={"answer": "Hello."}, total_tokens=11)],
        Usage(0, 11, 11),
    ),
    "chatflow 1.16": (
        "advanced-chat",
        [
            PING,
            workflow_started(),
            message("Hello.", "llm"),
            LLM_DONE,
            message_end(TOKENS),
            workflow_finished(outputs={"answer": "Hello."}, total_tokens=11),
        ],
        COUNTED,
    ),
    "chatflow 1.16, annotation hit: a success that calls itself failed": (
        "advanced-chat",
        [
            PING,
            message("Hello."),
            message_end(TOKENS),
            workflow_started(),
            workflow_finished("failed", error=NO_TERMINAL),
        ],
        COUNTED,
    ),
    "chatflow with a fail branch": (
        "advanced-chat",
        [
            node("node_finished", "code", "code", status="exception", outputs={"error_message": "boom"}),
            message("Hello.", "answer"),
            workflow_finished("partial-succeeded", {"answer": "Hello."}),
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "chatflow whose text comes only with its end": (
        "advanced-chat",
        [workflow_started(), message_end(TOKENS), workflow_finished(outputs={"answer": "Hello.", "files": []})],
        COUNTED,
    ),
    "chatflow that ends without a terminal event": ("advanced-chat", [message("Hello."), message_end()], None),
    "workflow": (
        "workflow",
        [PING, workflow_started(), text_chunk("Hel"), text_chunk("lo."), LLM_DONE, workflow_finished(outputs={})],
        COUNTED,
    ),
    "workflow that streams nothing": ("workflow", [workflow_finished(outputs={"result": "Hello.", "n": 1})], None),
    "workflow with an iteration": (
        "workflow",
        [
            node("iteration_started", "it", "iteration"),
            node("iteration_next", "it", "iteration", index=0),
            text_chunk("Hello."),
            node("iteration_completed", "it", "iteration"),
            workflow_finished(outputs={"text": "Hello."}),
        ],
        None,
    ),
    "sound and unknown events are ignored": (
        "chat",
        [
            {"event": "tts_message", "task_id": TASK, "audio": "AAAA"},
            {"event": "telepathy", "task_id": TASK, "answer": "no"},
            {"event": "telepathy", "answer": {"no": 1}, "status": [], "id": 7},
            {"task_id": TASK},
            message("Hello."),
            {"event": "tts_message_end", "audio": ""},
            message_end(TOKENS),
        ],
        COUNTED,
    ),
    "JSON as versions before 1.8 write it": (
        "chat",
        [
            b'data: {"event": "message", "task_id": "t-1", "answer": "\\u0048ello."}\n\n',
            b'data: {"event": "message_end", "task_id": "t-1", "metadata": {}}\n\n',
        ],
        None,
    ),
}


@pytest.mark.parametrize(("mode", "events", "counted"), GOOD.values(), ids=GOOD)
def test_successful_turns(mode: Mode, events: list[Json | bytes], counted: Usage | None) -> None:
    folded = answer(mode, *events)
    assert (folded.text, folded.reasoning, folded.finish_reason) == ("Hello.", "", "stop")
    assert folded.usage == counted


# Streams of failed turns, for every version: mode, stream, the text before the error, its status and code.
BAD: dict[str, tuple[Mode, list[Json | bytes], str, int, str | None]] = {
    "chat, at once": ("chat", [error("[scripted] boom")], "", 502, "completion_request_error"),
    "chat, midway": ("chat", [message("Hel"), error("[scripted] boom")], "Hel", 502, "completion_request_error"),
    "chat 1.16, the provider limits": (
        "chat",
        [error("[scripted] Rate Limit Error", "rate_limit_error", 429)],
        "",
        429,
        "rate_limit_exceeded",
    ),
    "an error of the event publisher": (
        "workflow",
        [{"event": "error", "message": "broken pipe", "status": 500}],
        "",
        502,
        "upstream_error",
    ),
    "an error whose code and status have other types": (
        "chat",
        [{"event": "error", "message": "boom", "status": "400", "code": 17}],
        "",
        502,
        "upstream_error",
    ),
    "agent 1.16 without an answer": (
        "agent",
        [agent_thought("1"), error("Exceeded maximum output retries (1)")],
        "",
        502,
        "completion_request_error",
    ),
    "chatflow 1.11": (
        "advanced-chat",
        [
            message("Hel", "llm"),
            LLM_FAILED,
            workflow_finished("failed", error="[scripted] boom"),
            error("Run failed: [scripted] boom", "invalid_param"),
        ],
        "Hel",
        502,
        "upstream_error",
    ),
    "chatflow 1.13": (
        "advanced-chat",
        [PING, LLM_FAILED, workflow_finished("failed", error="[scripted] boom")],
        "",
        502,
        "upstream_error",
    ),
    "chatflow 1.16, an input is missing": (
        "advanced-chat",
        [PING, workflow_started(), workflow_finished("failed", error="query is required in input form")],
        "",
        400,
        None,
    ),
    "workflow": (
        "workflow",
        [text_chunk("Hel"), workflow_finished("failed", {}, error="[scripted] boom")],
        "Hel",
        502,
        "upstream_error",
    ),
    "workflow that gives no reason": ("workflow", [workflow_finished("failed")], "", 502, "upstream_error"),
    "a run with an unknown status": ("workflow", [workflow_finished("exploded")], "", 502, "upstream_error"),
    "a stream that just ends": ("chat", [message("Hel")], "Hel", 502, "upstream_incomplete"),
    "a stream that ends at once": ("chat", [], "", 502, "upstream_incomplete"),
    "a stream that ends within its last event": (
        "chat",
        [message("Hel"), stream(message_end())[:-1]],
        "Hel",
        502,
        "upstream_incomplete",
    ),
}


@pytest.mark.parametrize(("mode", "events", "text", "status", "code"), BAD.values(), ids=BAD)
def test_failed_turns(mode: Mode, events: list[Json | bytes], text: str, status: int, code: str | None) -> None:
    folded = answer(mode, *events)
    assert folded.error is not None
    assert (folded.text, folded.error.status, folded.error.code) == (text, status, code)
    assert folded.error.started
    assert "cannot be read" not in folded.error.message


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"null",
        b'{"event":"message","answer":{}}',
        b'{"event":"message","answer":"\xff"}',
        b'{"event":"message","answer":"\\ud83d!!!!!!"}',
        b'{"event":"workflow_finished"}',
        b'{"event":"workflow_finished","data":null}',
        b'{"event":"node_finished","data":{"node_id":7}}',
        b'{"event":"message_end","metadata":[]}',
        b'{"x":' + b"[" * 5000,
    ],
)
def test_malformed_events(payload: bytes) -> None:
    folded = answer("chat", message("Hel"), b"data: " + payload + b"\n\n")
    assert folded.error is not None
    assert (folded.text, folded.error.status, folded.error.code) == ("Hel", 502, "upstream_error")
    assert "cannot be read" in folded.error.message


def test_missing_fields() -> None:
    bare: list[Json | bytes] = [
        b"data: \n\n",
        {"event": "node_finished", "data": {"node_id": "llm", "node_type": "llm"}},
        {"event": "reasoning_chunk", "data": {}},
        {"event": "text_chunk", "data": {}},
        {"event": "agent_thought"},
        {"event": "message_file"},
        {"event": "message_end"},
        {"event": "workflow_finished", "data": {"status": "succeeded"}},
    ]
    assert decode("advanced-chat", message("Hello."), *bare) == [TextDelta("Hello."), TurnFinished("stop")]


def test_null_fields() -> None:
    nulled = [
        node("node_finished", status="failed", outputs=None),
        node("node_finished", "know", "knowledge-retrieval", outputs=None),
        {**message_end(), "metadata": None, "files": None},
        workflow_finished(outputs=None, files=None, error=None, total_tokens=None),
    ]
    assert decode("advanced-chat", message("Hello."), *nulled) == [TextDelta("Hello."), TurnFinished("stop")]


def test_an_event_that_is_too_large() -> None:
    prompted = failure("chat", message("Hel"), message("x" * 2000), max_event_bytes=1000)
    assert "too large" in prompted.message
    assert answer("chat", message("Hel"), message("x" * 2000), max_event_bytes=1000).text == "Hel"


def test_only_large_events_are_checked_for_the_number_of_their_values() -> None:
    outputs: Json = {"a": [[]] * 300_000}
    assert "cannot be read" in failure("workflow", workflow_finished(outputs=outputs)).message
    folded = answer("workflow", workflow_finished(outputs={"a": "x" * 100_000}))
    assert (folded.error, len(folded.text)) == (None, 100_000)


def test_retries_may_not_repeat_the_text_without_end() -> None:
    retries = [
        event
        for number in map(str, range(70))
        for event in (message("a", number), node("node_retry", number), message("b", number))
    ]
    decoder = DifyEventDecoder("advanced-chat")
    decoder.feed(stream(message("x" * 1024 * 1024)))
    events = decoder.feed(stream(*retries))
    assert sum(isinstance(event, TextReplaced) for event in events) == 63
    assert isinstance(events[-1], TurnFailed)


# Events after a terminal event that reports success.
AFTERMATHS: dict[str, Json | bytes] = {
    "a failed run": workflow_finished("failed", error=NO_TERMINAL),
    "an error": error("boom"),
    "garbage": b"data: {\n\n",
    "bad UTF-8": b'data: {"event":"\xff"}\n\n',
    "too large an event": message("x" * 2000),
    "a cut event": b"data: {",
    "nothing": b"",
}


@pytest.mark.parametrize("late", AFTERMATHS.values(), ids=AFTERMATHS)
@pytest.mark.parametrize("mode", ["chat", "advanced-chat", "agent"])
def test_later_events_do_not_change_a_success(mode: Mode, late: Json | bytes) -> None:
    events = decode(mode, message("Hello."), message_end(TOKENS), late, max_event_bytes=1000)
    assert events == [TextDelta("Hello."), TurnFinished("stop", COUNTED)]


@pytest.mark.parametrize("late", list(AFTERMATHS.values())[1:], ids=list(AFTERMATHS)[1:])
@pytest.mark.parametrize("mode", ["workflow", "advanced-chat"])
def test_later_events_do_not_change_a_successful_run(mode: Mode, late: Json | bytes) -> None:
    events = decode(mode, workflow_finished(outputs={"answer": "Hello."}), late, max_event_bytes=1000)
    assert events == [TextDelta("Hello."), TurnFinished("stop")]


def test_a_turn_ends_at_its_terminal_event_or_waits_for_the_sibling() -> None:
    turns: list[tuple[Mode, Json, bool]] = [
        ("chat", message_end(), True),
        ("agent", message_end(), True),
        ("workflow", workflow_finished(), True),
        ("advanced-chat", message_end(), False),
        ("advanced-chat", workflow_finished(), False),
    ]
    for mode, first, ended in turns:
        decoder = DifyEventDecoder(mode)
        decoder.feed(stream(first))
        assert (decoder.ending, decoder.ended) == (True, ended), (mode, first)
        if not ended:
            assert isinstance(decoder.finish()[-1], TurnFinished)


def test_only_a_terminal_event_concludes_a_turn() -> None:
    """An abandoned stream does not, so that a run that may still continue is stopped."""
    terminal: list[Json] = [message_end(), workflow_finished("failed"), workflow_paused(), error("boom")]
    others: list[Json | bytes] = [message("a"), b"data: {\n\n"]
    for event in [*terminal, *others]:
        decoder = DifyEventDecoder("chat")
        decoder.feed(stream(event))
        assert decoder.concluded is (event in terminal), event


def test_stopped_turns() -> None:
    """A stopped chat app ends with zero usage, a stopped chatflow of 1.16 without ``message_end``."""
    assert decode("chat", message("Hel"), message_end(ZEROS))[-1] == TurnFinished("stop", Usage(0, 0, 0, "0E-7", "USD"))
    run = workflow_finished("stopped", {}, error="Stopped by user.")
    assert decode("workflow", text_chunk("Hel"), run) == [TextDelta("Hel"), TurnFinished("stop")]
    assert decode("advanced-chat", message("Hel"), LLM_DONE, run, message_end(ZEROS))[-1] == TurnFinished(
        "stop", COUNTED
    )


def test_adjacent_deltas_of_one_read_are_merged() -> None:
    decoder = DifyEventDecoder("chat")
    texts = ["<think>", "o", "ne", "</think>", "tw", "o"]
    assert decoder.feed(stream(*map(message, texts))) == [ReasoningDelta("one"), TextDelta("two")]
    assert decoder.feed(stream(message(" three"), PING, message("."), message_end())) == [
        TextDelta(" three."),
        TurnFinished("stop"),
    ]


def test_ids_are_set_by_the_first_event_that_has_them() -> None:
    decoder = DifyEventDecoder("advanced-chat")
    decoder.feed(PING)
    assert (decoder.ids, decoder.frames, decoder.started) == (TurnIds(), 1, False)
    decoder.feed(stream(workflow_started()))
    assert (decoder.ids, decoder.started) == (TurnIds(TASK, workflow_run_id=RUN), True)
    decoder.feed(stream(message("a")))
    assert decoder.ids == TurnIds(TASK, MESSAGE, CONVERSATION, RUN)
    decoder.feed(stream({**message("b"), "task_id": "t-2", "message_id": "m-2"}))
    assert decoder.ids == TurnIds(TASK, MESSAGE, CONVERSATION, RUN)
    workflow = DifyEventDecoder("workflow")
    workflow.feed(stream(text_chunk("a")))
    assert workflow.ids == TurnIds(TASK, workflow_run_id=RUN)


# Thinking


def test_thinking_is_split_off_wherever_its_tags_are_split() -> None:
    pieces = ["<th", "ink>\nh", "m</thi", "nk>\n\nHel", "lo."]
    folded = answer("chat", *map(message, pieces), message_end())
    assert (folded.reasoning, folded.text) == ("hm", "Hello.")
    folded = answer("agent-chat", *map(agent_message, pieces), message_end())
    assert (folded.reasoning, folded.text) == ("hm", "Hello.")
    folded = answer("workflow", *map(text_chunk, pieces), workflow_finished(outputs={}))
    assert (folded.reasoning, folded.text) == ("hm", "Hello.")


def test_separated_reasoning() -> None:
    """The last ``reasoning_chunk`` of 1.16 follows the text and is empty."""
    chunks = [reasoning_chunk("\nh"), reasoning_chunk("m"), message("Hello.", "llm"), reasoning_chunk("", final=True)]
    events = decode("advanced-chat", *chunks, message_end())
    assert events == [ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("Hello."), TurnFinished("stop")]
    assert decode("advanced-chat", {"event": "reasoning_chunk", "data": {}}, message_end()) == [TurnFinished("stop")]


def test_an_agents_thoughts_are_reasoning_and_grow() -> None:
    events = [
        agent_thought("1", "I will"),
        agent_thought("1", "I will look."),
        agent_thought("1", "I will look.", tool="search"),
        agent_thought("2", " Found."),
        agent_thought("2", "Something else."),
        agent_message("Hello."),
        message("Hello."),
        message_end(),
    ]
    folded = answer("agent", *events)
    assert (folded.reasoning, folded.text) == ("I will look. Found.", "Hello.")
    assert answer("agent-chat", *events[:-2], message_end()).reasoning == ""


# Repeated text


def test_the_text_of_a_retried_node_appears_once() -> None:
    truth = "this text is streamed and whole"
    folded = answer(
        "advanced-chat",
        *(message(part, "llm") for part in ("this tex", "t is str", "eamed an")),
        node("node_retry"),
        *(message(part, "llm") for part in ("this text is ", "streamed and ", "whole")),
        workflow_finished("partial-succeeded", {"answer": truth}),
    )
    assert folded.text == truth
    events = decode(
        "advanced-chat",
        message("this tex", "llm"),
        node("node_retry"),
        message("this text", "llm"),
        message(" is", "llm"),
        message_end(),
    )
    assert events == [TextDelta("this tex"), TextDelta("t"), TextDelta(" is"), TurnFinished("stop")]


def test_a_retried_node_with_another_text() -> None:
    events = decode(
        "workflow",
        text_chunk("Yes, "),
        text_chunk("surely"),
        node("node_retry"),
        text_chunk("Yes"),
        text_chunk("terday"),
        text_chunk(" it rained."),
        node("node_retry"),
        text_chunk("Yesterday it rained a lot."),
        workflow_finished(outputs={}),
    )
    assert events == [
        TextDelta("Yes, "),
        TextDelta("surely"),
        TextReplaced("Yesterday", moderated=False),
        TextDelta(" it rained."),
        TextReplaced("Yesterday it rained a lot.", moderated=False),
        TurnFinished("stop"),
    ]


def test_a_retried_node_with_other_reasoning() -> None:
    folded = answer(
        "workflow",
        text_chunk("<think>one"),
        node("node_retry"),
        text_chunk("<think>two"),
        text_chunk(" three</think>"),
        text_chunk("Hello."),
        workflow_finished(outputs={}),
    )
    assert folded.text == "Hello."


def test_a_shorter_second_text_is_used_in_a_folded_answer() -> None:
    folded = answer(
        "advanced-chat",
        message("a long text", "llm"),
        node("node_retry"),
        message("a long", "llm"),
        LLM_DONE,
        workflow_finished(outputs={"answer": "<think>x</think>a long"}),
        message_end(TOKENS),
    )
    assert folded.text == "a long"


def test_a_node_in_a_loop_may_repeat_its_text() -> None:
    events = [text_chunk("again "), node("node_finished", outputs=None)] * 3
    assert answer("workflow", *events, workflow_finished(outputs={})).text == "again " * 3


# Moderation


@pytest.mark.parametrize("reason", ["output_moderation", None])
def test_a_moderation_replaces_everything(reason: str | None) -> None:
    """The outputs of 1.16 still contain the replaced text; older versions send no reason."""
    for ends in (
        [message_end(TOKENS)],
        [message_end(TOKENS), workflow_finished(outputs={"answer": "bad words"})],
        [workflow_finished(outputs={"answer": "bad words"}), message_end(TOKENS)],
    ):
        events = decode("advanced-chat", message("bad"), message_replace("PRESET", reason=reason), *ends)
        assert events == [
            TextDelta("bad"),
            TextReplaced("PRESET", moderated=True),
            TurnFinished("content_filter", COUNTED),
        ]


def test_outputs_do_not_restore_a_text_that_moderation_removed() -> None:
    folded = answer(
        "advanced-chat", message_replace(""), LLM_DONE, workflow_finished("stopped", {"answer": "bad words"})
    )
    assert (folded.text, folded.finish_reason) == ("", "content_filter")


def test_a_moderation_after_a_retry() -> None:
    folded = answer(
        "advanced-chat",
        message("bad", "llm"),
        node("node_retry"),
        message("bad words", "llm"),
        message_replace("PRESET"),
        workflow_finished(outputs={"answer": "bad words"}),
    )
    assert folded.text == "PRESET"


def test_a_replacement_without_moderation() -> None:
    events = decode("advanced-chat", message("a"), message_replace("b", reason=""), message("c"), message_end())
    assert events == [
        TextDelta("a"),
        TextReplaced("b", moderated=False),
        TextDelta("c"),
        TurnFinished("stop"),
    ]


def test_an_answer_that_is_too_long_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_decoder, "MAX_ANSWER_CHARACTERS", 8)
    assert decode("chat", message("12345678"), message_end())[-1] == TurnFinished("stop")
    error = failure("chat", message("12345678"), message("9"))
    assert "longer than 8 characters" in str(error.log or error)


def test_outputs_of_a_workflow_are_returned_to_clients_that_emulate_tools() -> None:
    done = workflow_finished(outputs={"text": "a", "n": 1})
    assert decode("workflow", done, emulating=True)[-1] == TurnFinished("stop", outputs={"text": "a", "n": 1})
    assert decode("workflow", done)[-1] == TurnFinished("stop")


# Usage and finish reason


def test_the_usage_of_a_run_is_counted_before_its_end() -> None:
    decoder = DifyEventDecoder("workflow", origin=DIFY)
    decoder.feed(stream(LLM_DONE))
    assert decoder.run_usage == COUNTED
    decoder = DifyEventDecoder("workflow", origin=DIFY)
    without_prompts = node("node_finished", outputs={"usage": TOKENS})
    del without_prompts["data"]["process_data"]
    decoder.feed(stream(without_prompts))
    assert decoder.run_usage == COUNTED


def test_tokens_of_several_nodes_are_added_where_dify_sends_no_sum() -> None:
    second = node("node_finished", "llm2", outputs={"usage": usage(1, 2, total_price="9", currency="EUR")})
    third = node("node_finished", "llm3", outputs={"usage": usage(1, 1, total_price="0.0000009", currency="EUR")})
    done = workflow_finished(outputs={"text": "a"}, total_tokens=99)
    both = (("USD", "0.0001"), ("EUR", "9.0000009"))
    counted = Usage(11, 5, 16, prices=both)
    assert decode("workflow", LLM_DONE, second, third, done)[-1] == TurnFinished("stop", counted)
    assert counted.costs == both
    one = Usage(2, 3, 5, "9.0000009", "EUR")
    assert decode("workflow", second, third, done)[-1] == TurnFinished("stop", one)
    assert one.costs == (("EUR", "9.0000009"),)
    assert decode("workflow", LLM_DONE, done)[-1] == TurnFinished("stop", COUNTED)
    assert decode("workflow", done)[-1] == TurnFinished("stop", Usage(0, 99, 99))


def test_zero_tokens_of_a_stopped_run_are_no_count() -> None:
    done = workflow_finished(outputs={"text": "a"}, total_tokens=0)
    assert decode("workflow", done)[-1] == TurnFinished("stop", Usage())
    assert decode("workflow", LLM_DONE, done)[-1] == TurnFinished("stop", COUNTED)
    stopped = workflow_finished("stopped", {"text": "a"}, total_tokens=0)
    assert decode("workflow", stopped)[-1] == TurnFinished("stop", None)


def test_usage_in_difys_form() -> None:
    tokens = {"prompt_tokens": None, "completion_tokens": 2, "total_price": 0.5, "latency": 1}
    assert decode("chat", message_end(tokens))[-1] == TurnFinished("stop", Usage(0, 2, 2, "0.5", None, 1.0))


@pytest.mark.parametrize(
    ("reasons", "reason"),
    [(["length"], "length"), (["stop"], "stop"), (["length", "stop"], "stop"), ([None], "stop"), (["weird"], "stop")],
)
def test_a_model_that_ran_out_of_tokens(reasons: list[str | None], reason: str) -> None:
    nodes = [node("node_finished", outputs={"finish_reason": prompted}) for prompted in reasons]
    last = decode("advanced-chat", message("a"), *nodes, message_end())[-1]
    assert isinstance(last, TurnFinished)
    assert last.reason == reason


# Files


def test_a_file_with_several_signatures_is_reported_once() -> None:
    file = {"type": "image", "filename": "cat.png", "mime_type": "image/png", "size": 7, "transfer_method": "tool_file"}
    first = {**file, "url": "/files/tools/cat.png?timestamp=1&sign=a"}
    again = {**file, "url": "http://api:5001/files/tools/cat.png?timestamp=2&sign=b"}
    events = decode(
        "advanced-chat", message("a"), workflow_finished(outputs={}, files=[first]), message_end(files=[again])
    )
    url = f"{DIFY}/files/tools/cat.png?timestamp=1&sign=a"
    assert events[1:-1] == [FileProduced(url, "image", "cat.png", "image/png", 7)]


def test_files_of_nodes_are_reported_if_the_text_links_to_them() -> None:
    cat = {"url": "/files/tools/cat.png?timestamp=2", "type": "image", "transfer_method": "tool_file", "size": 7}
    dog = {**cat, "url": "/files/tools/dog.png?timestamp=2"}
    sent = {**cat, "url": "/files/tools/fox.png?timestamp=2", "transfer_method": "local_file"}
    unlisted = {"type": "image", "transfer_method": "tool_file"}
    text = message("![](/files/tools/cat.png?timestamp=1) /files/tools/fox.png")
    nodes = [node("node_finished", files=[cat, dog, sent, unlisted]), node("node_finished", files=None)]
    odd = node("node_finished", files=["a name"])
    events = decode("advanced-chat", text, *nodes, odd, message_end())
    assert events[1:-1] == [FileProduced(f"{DIFY}/files/tools/cat.png?timestamp=2", "image", size=7, linked=True)]


def test_a_file_linked_in_the_text_is_reported_and_not_linked_again() -> None:
    text = "![cat](/files/tools/cat.png?timestamp=1&sign=a)"
    file = {"url": "/files/tools/cat.png?timestamp=2", "type": "image", "transfer_method": "tool_file"}
    events = decode("advanced-chat", message(text), message_end(files=[file]))
    assert events[1] == FileProduced(f"{DIFY}/files/tools/cat.png?timestamp=2", "image", linked=True)
    assert answer("advanced-chat", message(text), message_end(files=[file])).text == text
    later = decode("agent-chat", message_file("/files/tools/cat.png?timestamp=2"), agent_message(text), message_end())
    assert later[1] == events[1]


@pytest.mark.parametrize("method", ["local_file", "remote_url"])
def test_the_users_files_are_not_part_of_the_answer(method: str) -> None:
    """1.16 lists the user's files at the end of a turn."""
    file = {"url": "/files/mine.png", "type": "image", "transfer_method": method}
    assert decode("chat", message_file("/files/mine.png", belongs_to="user"), message_end(files=[file])) == [
        TurnFinished("stop")
    ]


def test_an_agents_picture() -> None:
    events = decode("agent-chat", message_file("https://a.example/b.png"), agent_message("Here."), message_end())
    assert events[:2] == [TextDelta("Here."), FileProduced("https://a.example/b.png", "image")]


@pytest.mark.parametrize(
    ("file", "url"),
    [
        ({"remote_url": "https://a.example/b.pdf", "transfer_method": "tool_file"}, "https://a.example/b.pdf"),
        ({"url": "http://[b"}, "http://[b"),
        ({"url": ""}, None),
        ({}, None),
    ],
)
def test_malformed_files(file: Json, url: str | None) -> None:
    found = [event for event in decode("chat", message_end(files=[file])) if isinstance(event, FileProduced)]
    assert found == ([FileProduced(url, "custom")] if url else [])


# Citations


def test_citations() -> None:
    plain: Json = {"position": 1, "document_name": "Doc", "content": "…", "doc_metadata": None}
    page: Json = {"title": "Page", "doc_metadata": {"source": "upload", "source_url": "https://a.example/p"}}
    direct: Json = {"dataset_name": "Set", "url": "http://b.example"}
    scripted: Json = {"doc_metadata": {"url": "javascript:alert(1)"}}
    resources = [plain, page, direct, scripted]
    events = decode("chat", message("a"), message_end(TOKENS, resources=resources))
    assert events[1] == Citations(
        (
            Citation("Doc", None, plain),
            Citation("Page", "https://a.example/p", page),
            Citation("Set", "http://b.example", direct),
            Citation("", None, scripted),
        )
    )


RETRIEVED = node(
    "node_finished",
    "know",
    "knowledge-retrieval",
    outputs={"result": [{"title": "Doc", "content": "words", "metadata": {"score": 0.5, "url": "https://a.example"}}]},
)


def test_citations_of_a_chatflow_that_never_ends_its_message() -> None:
    raw = {"score": 0.5, "url": "https://a.example", "content": "words", "title": "Doc"}
    events = decode("advanced-chat", RETRIEVED, message("a"), workflow_finished(outputs={"answer": "a"}))
    assert events == [
        TextDelta("a"),
        Citations((Citation("Doc", "https://a.example", raw),)),
        TurnFinished("stop"),
    ]


def test_citations_are_reported_once() -> None:
    end = message_end(resources=[{"title": "Doc"}])
    events = decode("advanced-chat", RETRIEVED, message("a"), end, workflow_finished(outputs={"answer": "a"}))
    assert [event for event in events if isinstance(event, Citations)] == [
        Citations((Citation("Doc", None, {"title": "Doc"}),))
    ]
    empty = node("node_finished", "know", "knowledge-retrieval", outputs={"result": None})
    assert decode("workflow", empty, workflow_finished(outputs={}))[:-1] == []


# A workflow's output


def test_a_named_output_is_the_whole_answer() -> None:
    events = [text_chunk("draft"), workflow_finished(outputs={"text": "draft", "report": "Hello."})]
    assert answer("workflow", *events, output_variable="report").text == "Hello."
    assert answer("workflow", *events).text == "draft"


# Progress

STEPS: list[Json | bytes] = [
    node("node_started", "start", "start"),
    node("node_finished", "start", "start", status="succeeded", outputs={}),
    node("node_started", title="Think"),
    node("node_retry", title="Think"),
    node("node_finished", title="Think", status="succeeded", outputs={}),
    node("node_finished", "code", "code", title="Count", status="exception", outputs=None),
    node("node_finished", "x", "code", title="", status="succeeded", outputs={}),
    agent_log("Round 1", "start"),
    agent_log("Round 1", "start"),
    agent_log("Round 1", "success"),
    agent_log("", "success"),
    agent_thought("1", tool="search"),
    agent_thought("1", tool="search"),
    agent_thought("1", tool="search", observation="found"),
    workflow_finished(outputs={}),
]


def test_progress_lists_titles_and_states() -> None:
    events = decode("workflow", *STEPS, progress=True)
    assert events == [
        StepChanged("Think", "started"),
        StepChanged("Think", "retrying"),
        StepChanged("Think", "succeeded"),
        StepChanged("Count", "failed"),
        StepChanged("Round 1", "started"),
        StepChanged("Round 1", "succeeded"),
        StepChanged("search", "started"),
        StepChanged("search", "succeeded"),
        TurnFinished("stop"),
    ]
    assert "secret" not in str(events)


def test_no_progress_unless_asked() -> None:
    assert decode("workflow", *STEPS) == [TurnFinished("stop")]


# Pauses


def test_a_paused_workflow_is_answered_with_its_form() -> None:
    """People can read forms that have no token, and are told where to answer them."""
    form = {
        "form_id": "f-1",
        "form_content": "  Approve the draft?\n",
        "actions": [{"id": "yes", "title": "Approve"}, {"id": "no", "title": None}],
    }
    email = {"form_content": "Sign here.", "approval_channels": ["email", "web"]}
    paused = workflow_paused(form, email, {"form_token": "tok-1", "actions": [{"id": "ok"}]}, {})
    closed = "This form cannot be answered here, only through"
    text = (
        f"Approve the draft?\n\n[Approve] · [no]\n\n{closed} Dify itself.\n\n"
        f"Sign here.\n\n{closed} its approval channels in Dify: email, web.\n\n[ok]"
    )
    required = {"event": "human_input_required", "task_id": TASK, "data": {"form_id": "f-1"}}
    folded = answer("advanced-chat", message("Draft: …"), required, paused)
    assert (folded.text, folded.finish_reason) == (f"Draft: …\n\n{text}", "stop")
    assert answer("workflow", required, paused).text == text
    assert answer("workflow", {"event": "workflow_paused", "data": {}}).text == ""


# Whether the model's prompt includes the conversation


RECORDED = ("1.11.2", "1.13.0", "1.16.1")


def remembers(version: str, name: str, asked_before: str | None) -> bool | None:
    decoder = DifyEventDecoder("advanced-chat", asked_before=asked_before)
    decoder.feed(recording(version, name).body)
    return decoder.remembers


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize(
    ("name", "asked_before", "shown"),
    [
        ("chatflow-llm-stream-2", "hello flow", True),
        ("hist-flow-image-2", "first with image", True),
        ("hist-flow-disc-2", "SLOW:8:0.3", True),
        ("chatflow-llm-stream-2", "hello flow\nand more", False),
        ("chatflow-multi-answer", "hello flow", False),
        ("chatflow-failbranch-stream", "hello flow", None),  # the model failed: the event has no prompts
        ("chatflow-retry-exhausted", "hello flow", None),
        ("chatflow-static-stream", "hello flow", None),  # the chatflow has no model
        ("chatflow-llm-stream-2", None, None),  # no earlier question to look for
    ],
)
def test_a_chatflow_remembers_if_a_prompt_includes_the_earlier_question(
    version: str, name: str, asked_before: str | None, shown: bool | None
) -> None:
    assert remembers(version, name, asked_before) is shown


def prompted(*texts: str) -> Json:
    """Return the ``node_finished`` of a model whose prompts are these texts."""
    prompts = [{"role": "user", "text": text, "files": []} for text in texts]
    return node("node_finished", "llm", outputs={"text": "x"}, process_data={"prompts": prompts})


@pytest.mark.parametrize(
    ("nodes", "shown"),
    [
        ([prompted("now"), prompted("before", "now")], True),
        ([prompted("before", "now"), prompted("now")], True),
        ([prompted("now"), prompted("now")], False),
        ([prompted("now"), node("node_finished", "llm", outputs={"error_message": "x"}, process_data={})], False),
        ([prompted("The conversation:\r\nUser: before\r\nAssistant: yes")], True),
        ([prompted()], None),
        ([node("node_finished", "llm", outputs={"text": "x"}, process_data=None)], None),
    ],
)
def test_one_model_with_the_earlier_question_is_enough(nodes: list[Json], shown: bool | None) -> None:
    decoder = DifyEventDecoder("advanced-chat", asked_before="before")
    decoder.feed(stream(workflow_started(), *nodes))
    assert decoder.remembers is shown


# Many events in one read


def test_events_of_one_read_are_the_same_as_one_by_one() -> None:
    texts = (message(text) for text in ("One. ", "", "", "Two.", " Three."))
    parts: list[Json | bytes] = [*texts, PING, message_end()]
    together, alone = DifyEventDecoder("chat"), DifyEventDecoder("chat")
    events = together.feed(stream(*parts))
    assert events == join_events([event for part in parts for event in alone.feed(stream(part))])
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["One. Two. Three."]


def test_empty_texts_of_one_read_are_no_event() -> None:
    decoder = DifyEventDecoder("chat")
    assert decoder.feed(stream(message("One."))) == [TextDelta("One.")]
    assert decoder.feed(stream(message(""), message(""), PING)) == []
    assert decoder.feed(stream(message(""), message(" Two."), message_end())) == [
        TextDelta(" Two."),
        TurnFinished("stop"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"event": "message", "answer": "a"}\n\ndata: {"event": "message", "answer": 1}\n\n',
        b'data: {"event": "message", "answer": "a"}\n\ndata: nothing\n\n',
        b'data: {"event": "message", "answer": "a"\n\ndata: "event": "message"}\n\n',
        b'data: {"event": "message"}, {"event": "message"}\n\ndata: {"event": "message"}\n\n',
    ],
    ids=["mistyped", "no JSON", "JSON over two frames", "two objects in a frame"],
)
def test_unreadable_events_of_one_read_end_the_turn(body: bytes) -> None:
    assert isinstance(DifyEventDecoder("chat").feed(body)[-1], TurnFailed)


# Tools and schemas are emulated


def test_fixed_text_follows_text_that_might_have_begun_a_tag() -> None:
    fixed = {**message(" 2"), "from_variable_selector": ["answer", "answer"]}
    events = decode("advanced-chat", message("1 <", "llm"), fixed, workflow_finished(), emulating=True)
    assert events[:-1] == [*events[:-2], FixedTextDelta(" 2")]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "1 < 2"


@pytest.mark.parametrize(("emulating", "kind"), [(False, ReasoningDelta), (True, AgentThoughtDelta)])
def test_thoughts_of_an_agent(emulating: bool, kind: type[ReasoningDelta]) -> None:
    thought = agent_thought("t", "I call a tool.")
    events = decode("agent", thought, agent_message("Done."), message_end(), emulating=emulating)
    assert events[:2] == [kind("I call a tool."), TextDelta("Done.")]
