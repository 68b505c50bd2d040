"""Reading calls and formatted answers: what the client gets, what is repaired, and when a turn fails."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from msgspec import json
from msgspec.structs import replace

from openai_dify_proxy.errors import ResponseFormatInvalid, StreamCut, ToolCallInvalid
from openai_dify_proxy.events import (
    AgentThoughtDelta,
    Event,
    FixedTextDelta,
    HumanInput,
    ReasoningDelta,
    RefusalDelta,
    Repairs,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    Usage,
)
from openai_dify_proxy.tools.output_reader import MAX_CALLS, OutputReader
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool, ToolChoice

CITY = json.encode({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
WEATHER = Tool("get_weather", "Get the weather.", CITY)
STRICT = Tool("get_weather", "Get the weather.", CITY, strict=True)
PATCH = Tool("apply_patch", custom=True)
TOOLS = OutputRequest((WEATHER, PATCH))
REQUIRED = OutputRequest((WEATHER,), ToolChoice("required"))
POINT = AnswerFormat(json.encode({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}), "P")
FORMAT = OutputRequest(answer_format=POINT)

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
WRONG = '<tool_call>{"name": "get_weather", "arguments": {"city": 1}}</tool_call>'
BROKEN = '<tool_call>{"name": "get_weather", "arguments": {"city": "Pa'
END = TurnFinished("stop", Usage(10, 5, 15))


def reader_of(request: OutputRequest, *, streamed: bool = True, max_repairs: int = 1) -> OutputReader:
    numbers = count(1)
    return OutputReader(request, streamed=streamed, new_id=lambda: f"call_{next(numbers)}", max_repairs=max_repairs)


def call(index: int, arguments: str, number: int | None = None) -> list[Event]:
    return [
        ToolCallStarted(index, f"call_{number or index + 1}", "get_weather"),
        ToolCallDelta(index, arguments),
        ToolCallFinished(index),
    ]


def joined(events: list[Event]) -> list[Event]:
    """Join adjacent deltas of one call."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta):
            out[-1] = ToolCallDelta(last.index, last.text + event.text)
        elif type(event) is TextDelta and type(last) is TextDelta:
            out[-1] = TextDelta(last.text + event.text)
        else:
            out.append(event)
    return out


def read(reader: OutputReader, *events: Event) -> list[Event]:
    return joined([out for event in events for out in reader.filter([event])])


def test_text_streams_until_a_call_begins() -> None:
    reader = reader_of(TOOLS)
    assert reader.filter([TextDelta("Let me see")]) == [TextDelta("Let me see")]
    assert reader.filter([TextDelta(". <to")]) == [TextDelta(". ")]
    assert read(reader, TextDelta(CALL[3:]), END) == [
        *call(0, '{"city": "Paris"}'),
        TurnFinished("tool_calls", END.usage),
    ]


def test_arguments_stream_as_they_come() -> None:
    reader = reader_of(TOOLS)
    events = reader.filter([TextDelta('<tool_call>{"name": "get_weather", "arguments": {"city": "Pa')])
    assert joined(events) == [ToolCallStarted(0, "call_1", "get_weather"), ToolCallDelta(0, '{"city": "Pa')]


@pytest.mark.parametrize("request_", [OutputRequest((STRICT,)), REQUIRED])
def test_arguments_that_must_be_valid_are_held_back(request_: OutputRequest) -> None:
    reader = reader_of(request_)
    assert reader.filter([TextDelta(CALL[:60])]) == []
    assert joined(reader.filter([TextDelta(CALL[60:])])) == call(0, '{"city": "Paris"}')


def test_plain_answer_passes() -> None:
    assert read(reader_of(TOOLS), TextDelta("No call."), END) == [TextDelta("No call."), END]


def test_calls_are_numbered() -> None:
    assert read(reader_of(TOOLS), TextDelta(f"{CALL}\n{CALL}"), END) == [
        *call(0, '{"city": "Paris"}'),
        *call(1, '{"city": "Paris"}'),
        TurnFinished("tool_calls", END.usage),
    ]


def test_text_behind_a_call_is_cut() -> None:
    reader = reader_of(TOOLS)
    assert read(reader, TextDelta(f"{CALL}\n\nIt is sunny.")) == [
        *call(0, '{"city": "Paris"}'),
        TurnFinished("tool_calls"),
    ]
    assert reader.cut


def test_only_the_first_call_counts_without_parallel_calls() -> None:
    reader = reader_of(OutputRequest((WEATHER,), parallel=False))
    assert read(reader, TextDelta(f"{CALL}\n{CALL}")) == [*call(0, '{"city": "Paris"}'), TurnFinished("tool_calls")]
    assert reader.cut


def test_number_of_calls_is_limited() -> None:
    reader = reader_of(TOOLS)
    events = reader.filter([TextDelta(CALL * (MAX_CALLS + 5))])
    assert sum(isinstance(event, ToolCallStarted) for event in events) == MAX_CALLS
    assert reader.cut


@pytest.mark.parametrize(
    "choice", [ToolChoice("none"), ToolChoice("auto", ("apply_patch",))], ids=["none", "another tool"]
)
def test_a_call_that_is_not_allowed_is_text(choice: ToolChoice) -> None:
    reader = reader_of(OutputRequest((WEATHER, PATCH), choice))
    assert read(reader, TextDelta(CALL), END) == [TextDelta(CALL), END]


def test_text_of_the_app_is_never_a_call() -> None:
    reader = reader_of(TOOLS)
    assert read(reader, FixedTextDelta(CALL), TextDelta("!"), END) == [TextDelta(f"{CALL}!"), END]


def test_repeated_question_loses_its_instructions() -> None:
    question = FixedTextDelta("Hello?\n\n<instructions>\nTools: …\n</instructions>")
    assert read(reader_of(TOOLS), question, END) == [TextDelta("Hello?"), END]


def test_a_call_within_reasoning_counts_if_nothing_follows() -> None:
    reasoning = ReasoningDelta(f"I need a tool. {CALL}")
    assert read(reader_of(TOOLS), reasoning, END) == [
        reasoning,
        *call(0, '{"city": "Paris"}'),
        TurnFinished("tool_calls", END.usage),
    ]


@pytest.mark.parametrize("streamed", [True, False])
def test_custom_tool_gets_free_text(streamed: bool) -> None:
    text = '<tool_call>{"name": "apply_patch"}\n*** Begin Patch\n*** End Patch\n</tool_call>'
    assert read(reader_of(TOOLS, streamed=streamed), TextDelta(text), END) == [
        ToolCallStarted(0, "call_1", "apply_patch", custom=True),
        ToolCallDelta(0, "*** Begin Patch\n*** End Patch"),
        ToolCallFinished(0),
        TurnFinished("tool_calls", END.usage),
    ]


# Invalid calls


def test_invalid_call_is_repaired() -> None:
    reader = reader_of(REQUIRED)
    assert read(reader, TextDelta(f"Sure. {WRONG}"), END) == [TextDelta("Sure. ")]
    assert reader.repair is not None
    assert "get_weather" in reader.repair
    assert "city" in reader.repair
    assert read(reader, TextDelta(f"Sorry. {CALL}"), TurnFinished("stop", Usage(20, 2, 22))) == [
        *call(0, '{"city": "Paris"}', 2),
        TurnFinished("tool_calls", Usage(30, 7, 37), repairs=Repairs(1, Usage(20, 2, 22))),
    ]
    assert reader.repair is None


def test_only_the_invalid_call_is_repaired() -> None:
    reader = reader_of(REQUIRED)
    assert read(reader, TextDelta(CALL + WRONG), END) == call(0, '{"city": "Paris"}')
    assert reader.repair is not None
    assert read(reader, TextDelta(CALL), END)[:3] == call(1, '{"city": "Paris"}', 3)


def test_invalid_call_before_further_text_is_repaired_after_a_stop() -> None:
    reader = reader_of(REQUIRED)
    assert read(reader, TextDelta(f"{WRONG}\nIt is sunny.")) == []
    assert reader.repair is not None
    assert not reader.cut


def test_missing_call_is_repaired() -> None:
    reader = reader_of(REQUIRED)
    assert read(reader, TextDelta("No."), END) == [TextDelta("No.")]
    assert reader.repair is not None


@pytest.mark.parametrize("text", ["No.", WRONG, BROKEN])
def test_required_call_fails_after_the_repairs(text: str) -> None:
    events = read(reader_of(REQUIRED, max_repairs=0), TextDelta(text), END)
    assert isinstance(events[-1], TurnFailed)
    assert isinstance(events[-1].error, ToolCallInvalid)


def test_failure_names_the_place() -> None:
    (failed,) = read(reader_of(REQUIRED, max_repairs=0), TextDelta(WRONG), END)
    assert isinstance(failed, TurnFailed)
    assert "get_weather" in failed.error.message
    assert "city" in failed.error.message


def test_call_of_another_tool_is_delivered_as_written() -> None:
    assert read(reader_of(TOOLS, streamed=False, max_repairs=0), TextDelta(WRONG), END) == [
        *call(0, '{"city": 1}'),
        TurnFinished("tool_calls", END.usage),
    ]


def test_unreadable_call_is_text() -> None:
    events = read(reader_of(TOOLS, streamed=False, max_repairs=0), TextDelta(f"Well: {BROKEN}"), END)
    assert events == [TextDelta(f"Well: {BROKEN}"), END]


def test_streamed_call_that_breaks_off_ends_with_length() -> None:
    events = read(reader_of(TOOLS), TextDelta(BROKEN), END)
    assert events == [*call(0, '{"city": "Pa'), TurnFinished("length", END.usage)]


def test_answer_that_the_model_may_not_end_is_not_repaired() -> None:
    end = TurnFinished("length", END.usage)
    assert read(reader_of(REQUIRED), TextDelta("No, beca"), end) == [TextDelta("No, beca"), end]


# Formatted answers


@pytest.mark.parametrize("text", ['{"x": 1}', 'Here:\n```json\n{"x": 1}\n```\nDone.'])
def test_formatted_answer_is_the_json(text: str) -> None:
    assert read(reader_of(FORMAT), TextDelta(text), END) == [TextDelta('{"x": 1}'), END]


@pytest.mark.parametrize("text", ["Hello.", '{"x": "one"}'])
def test_formatted_answer_is_repaired(text: str) -> None:
    reader = reader_of(FORMAT)
    assert read(reader, TextDelta(text), END) == []
    assert reader.repair is not None
    assert read(reader, TextDelta('{"x": 2}'), END)[0] == TextDelta('{"x": 2}')


def test_formatted_answer_fails_after_the_repairs() -> None:
    (failed,) = read(reader_of(FORMAT, max_repairs=0), TextDelta('{"x": "one"}'), END)
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, ResponseFormatInvalid)
    assert "x" in failed.error.message


@pytest.mark.parametrize(("text", "valid"), [('{"any": []}', True), ("[1]", False), ("none", False)])
def test_json_object_needs_no_schema(text: str, valid: bool) -> None:
    events = read(reader_of(OutputRequest(answer_format=AnswerFormat()), max_repairs=0), TextDelta(text), END)
    assert (events == [TextDelta(text), END]) is valid
    assert isinstance(events[-1], TurnFailed) is not valid


def test_call_instead_of_a_formatted_answer() -> None:
    request = OutputRequest((WEATHER,), answer_format=POINT)
    assert read(reader_of(request), TextDelta(f"Let me see. {CALL}"), END) == [
        *call(0, '{"city": "Paris"}'),
        TurnFinished("tool_calls", END.usage),
    ]


def test_formatted_answer_that_is_too_long_is_delivered_as_it_is() -> None:
    end = TurnFinished("length", END.usage)
    assert read(reader_of(FORMAT), TextDelta('{"x": '), end) == [TextDelta('{"x": '), end]


@pytest.mark.parametrize("outputs", [{"x": 5}, {"result": {"x": 5}}])
def test_outputs_of_a_workflow_are_the_answer_if_they_fit(outputs: dict[str, Any]) -> None:
    called: list[str] = []
    reader = OutputReader(
        FORMAT, streamed=True, new_id=lambda: "call_1", on_fitting_outputs=lambda: called.append("fits")
    )
    end = TurnFinished("stop", END.usage, outputs=outputs)
    assert read(reader, TextDelta("five"), end) == [TextDelta('{"x":5}'), END]
    assert called == ["fits"]


@pytest.mark.parametrize("outputs", [{"y": 5}, {"x": "five"}, {"result": {"y": 5}}, {"result": 5}])
def test_other_outputs_are_ignored(outputs: dict[str, Any]) -> None:
    end = TurnFinished("stop", END.usage, outputs=outputs)
    assert read(reader_of(FORMAT), TextDelta('{"x": 1}'), end) == [TextDelta('{"x": 1}'), END]


# Replacements


def test_moderation_of_a_formatted_answer_is_a_refusal() -> None:
    moderated = TextReplaced("Withheld.", moderated=True)
    events = read(reader_of(FORMAT), TextDelta("{"), moderated, TurnFinished("content_filter", END.usage))
    assert events == [RefusalDelta("Withheld."), END]


def test_moderation_of_another_answer_replaces_its_text() -> None:
    moderated, end = TextReplaced("Withheld.", moderated=True), TurnFinished("content_filter", END.usage)
    assert read(reader_of(TOOLS), TextDelta("Bad"), moderated, end) == [TextDelta("Bad"), moderated, end]


def test_retried_node_begins_again() -> None:
    again = TextReplaced(f"Again. {CALL}", moderated=False)
    assert read(reader_of(TOOLS), TextDelta("Once"), again, END) == [
        TextDelta("Once"),
        TextReplaced("Again. ", moderated=False),
        *call(0, '{"city": "Paris"}'),
        TurnFinished("tool_calls", END.usage),
    ]


def test_retried_node_cannot_revoke_a_call() -> None:
    again = TextReplaced("Again.", moderated=False)
    events = read(reader_of(TOOLS), TextDelta(CALL), again, END)
    assert events == [*call(0, '{"city": "Paris"}'), TurnFinished("tool_calls", END.usage)]


def test_retried_node_of_a_formatted_answer() -> None:
    again = TextReplaced('{"x": 2}', moderated=False)
    assert read(reader_of(FORMAT), TextDelta('{"x": 1'), again, END) == [TextDelta('{"x": 2}'), END]


def test_whole_answer_loses_its_calls() -> None:
    end = TurnFinished("stop", END.usage, answer=f"Sure. {CALL}")
    events = read(reader_of(TOOLS), TextDelta(f"Sure, {CALL}"), end)
    assert events[-1] == TurnFinished("tool_calls", END.usage, answer="Sure. ")


def test_whole_answer_is_the_formatted_one() -> None:
    end = TurnFinished("stop", END.usage, answer='{"x": 3}')
    assert read(reader_of(FORMAT), TextDelta("{"), end) == [TextDelta('{"x": 3}'), END]


def test_failed_turn_is_not_repaired() -> None:
    failed = TurnFailed(StreamCut("cut"))
    reader = reader_of(REQUIRED)
    assert read(reader, TextDelta("No"), failed) == [TextDelta("No"), failed]
    assert reader.repair is None


def test_unknown_usage_of_a_run_does_not_count() -> None:
    reader = reader_of(REQUIRED)
    read(reader, TextDelta(f"{WRONG} It is sunny."))
    events = read(reader, TextDelta(CALL), END)
    assert events[-1] == TurnFinished("tool_calls", END.usage, repairs=Repairs(1, END.usage))
    assert reader.usage == END.usage


# Runs that do not go as planned


def test_free_text_without_its_end_is_asked_for_again() -> None:
    reader = reader_of(OutputRequest((PATCH,)), streamed=False)
    assert read(reader, TextDelta('<tool_call>{"name": "apply_patch"}\n*** Begin'), END) == []
    assert reader.repair is not None
    assert "The text has no </tool_call> behind it." in reader.repair


def test_retried_node_restarts_a_call_that_is_held_back() -> None:
    again = TextReplaced('<tool_call>{"name": "get_weather", "arguments": {"city": "Ro', moderated=False)
    events = read(reader_of(TOOLS, streamed=False), TextDelta(BROKEN), again, TextDelta('me"}}</tool_call>'), END)
    calls = [event for event in events if not isinstance(event, TextReplaced)]
    assert calls == [*call(0, '{"city": "Rome"}', 2), TurnFinished("tool_calls", END.usage)]


def test_retried_node_in_the_middle_of_a_streamed_call_fails() -> None:
    again = TextReplaced('<tool_call>{"name": "get_weather", "arguments": {"city": "Ro', moderated=False)
    reader = reader_of(TOOLS)
    events = reader.filter([TextDelta(BROKEN), again, TextDelta('me"}}</tool_call>'), END])
    assert joined(events[:-1]) == call(0, '{"city": "Pa')[:2]
    assert isinstance(events[-1], TurnFailed)


def test_text_of_a_retried_node_after_a_call_is_dropped() -> None:
    again = TextReplaced("Again. ", moderated=False)
    events = read(reader_of(TOOLS), TextDelta(CALL), again, TextDelta(f"More. {CALL}"), END)
    assert events == [*call(0, '{"city": "Paris"}'), TurnFinished("tool_calls", END.usage)]


def test_repair_without_a_call_leaves_the_call_as_written() -> None:
    reader = reader_of(TOOLS, streamed=False)
    events = read(reader, TextDelta(f"Well. {WRONG}"), END) + read(reader, TextDelta("I cannot."), END)
    assert events[:-1] == [TextDelta("Well. "), *call(0, '{"city": 1}')]
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].reason == "tool_calls"


def test_repair_without_a_call_of_a_strict_tool_fails() -> None:
    reader = reader_of(OutputRequest((STRICT,)))
    (failed,) = read(reader, TextDelta(WRONG), END) + read(reader, TextDelta("I cannot."), END)
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, ToolCallInvalid)


def test_repair_of_one_of_two_calls_without_a_call() -> None:
    reader = reader_of(TOOLS, streamed=False)
    events = read(reader, TextDelta(CALL + WRONG), END)
    assert reader.rejected == CALL + WRONG
    events += read(reader, TextDelta("No."), END)
    assert events[:-1] == [*call(0, '{"city": "Paris"}'), *call(1, '{"city": 1}', 2)]


def test_formatted_answer_instead_of_a_corrected_call() -> None:
    reader = reader_of(OutputRequest((WEATHER,), answer_format=POINT), streamed=False)
    events = read(reader, TextDelta(WRONG), END) + read(reader, TextDelta('{"x": 1}'), END)
    assert events[0] == TextDelta('{"x": 1}')
    assert isinstance(events[1], TurnFinished)


def test_failed_repair_leaves_the_call_as_written() -> None:
    reader = reader_of(TOOLS, streamed=False)
    events = read(reader, TextDelta(WRONG), END) + read(reader, TurnFailed(StreamCut("cut")))
    assert events == [*call(0, '{"city": 1}'), TurnFinished("tool_calls", END.usage, repairs=Repairs(1))]


def test_failed_repair_of_a_required_call_is_an_invalid_call() -> None:
    reader = reader_of(REQUIRED)
    (failed,) = read(reader, TextDelta(WRONG), END) + read(reader, TurnFailed(StreamCut("cut")))
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, ToolCallInvalid)


def test_text_of_the_app_comes_after_text_that_is_held_back() -> None:
    events = read(reader_of(TOOLS), TextDelta("1 <"), FixedTextDelta(" 2"), TextDelta(" <"), FixedTextDelta("3"), END)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "1 < 2 <3"


def test_text_of_the_app_behind_a_call_is_cut() -> None:
    events = read(reader_of(TOOLS), FixedTextDelta("A: "), TextDelta(CALL), FixedTextDelta("\n\nBye."), END)
    assert events == [TextDelta("A: "), *call(0, '{"city": "Paris"}'), TurnFinished("tool_calls", END.usage)]


def test_text_of_the_app_behind_text_that_looked_like_a_call() -> None:
    text = '{"name": "other"'
    events = read(reader_of(TOOLS), TextDelta(text), FixedTextDelta(" End."), END)
    assert events == [TextDelta(f"{text} End."), END]
    events = read(reader_of(TOOLS), TextDelta(text), FixedTextDelta(" End."), TextDelta("}"), END)
    assert joined(events) == [TextDelta(f"{text}}} End."), END]


def test_thoughts_of_an_agent_are_no_calls() -> None:
    thought = AgentThoughtDelta(CALL)
    assert read(reader_of(TOOLS), thought, END) == [thought, END]


def test_usage_of_a_run_that_ended_with_its_cut() -> None:
    reader = reader_of(OutputRequest((WEATHER,), parallel=False))
    assert joined(reader.filter([TextDelta(CALL), END]))[-1] == TurnFinished("tool_calls", END.usage)


def test_whole_answer_of_a_repair_is_not_the_answer() -> None:
    reader = reader_of(REQUIRED, streamed=False)
    read(reader, TextDelta(f"Sure. {WRONG}"), END)
    events = read(reader, TextDelta(CALL), TurnFinished("stop", answer=f"Sorry. {CALL}"))
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].answer is None


def test_outputs_without_a_property_of_the_schema_are_ignored() -> None:
    optional = json.encode({"$ref": "#/$defs/P", "$defs": {"P": {"type": "object", "properties": {"x": {}}}}})
    reader = reader_of(OutputRequest(answer_format=AnswerFormat(optional)))
    end = TurnFinished("stop", END.usage, outputs={"text": '{"x": 1}'})
    assert read(reader, TextDelta('{"x": 1}'), end)[0] == TextDelta('{"x": 1}')


def test_outputs_of_a_schema_without_properties() -> None:
    reader = reader_of(OutputRequest(answer_format=AnswerFormat(b'{"type": "object"}')))
    assert read(reader, TurnFinished("stop", outputs={"y": 1}))[0] == TextDelta('{"y":1}')


def test_unreadable_call_after_another_one_is_dropped() -> None:
    reader = reader_of(TOOLS, streamed=False, max_repairs=0)
    assert reader.rejected == ""
    events = read(reader, TextDelta(CALL + BROKEN), END)
    assert events == [*call(0, '{"city": "Paris"}'), TurnFinished("tool_calls", END.usage)]


@pytest.mark.parametrize("arguments", ["{}", '{"a": 1}'])
def test_tool_without_a_schema_takes_any_object(arguments: str) -> None:
    reader = reader_of(OutputRequest((Tool("get_weather"),)), streamed=False)
    text = f'<tool_call>{{"name": "get_weather", "arguments": {arguments}}}</tool_call>'
    assert read(reader, TextDelta(text), END)[:-1] == call(0, arguments)


def test_tool_without_a_schema_takes_only_objects() -> None:
    reader = reader_of(OutputRequest((Tool("get_weather"),)), streamed=False)
    read(reader, TextDelta('<tool_call>{"name": "get_weather", "arguments": "Paris"}</tool_call>'), END)
    assert reader.repair is not None
    assert "The arguments are no JSON object." in reader.repair


def test_free_text_that_stays_without_its_end_is_delivered() -> None:
    reader = reader_of(TOOLS, streamed=False, max_repairs=0)
    events = read(reader, TextDelta('<tool_call>{"name": "apply_patch"}\n*** Begin'), END)
    assert events[1] == ToolCallDelta(0, "*** Begin")


# Paused runs

PAUSED = TurnFinished("stop", Usage(10, 5, 15), human_input=HumanInput("t", "", "", (), (), (), None, 0))
ASKED: list[Event] = [ToolCallStarted(0, "call_hi_t", "dify_human_input"), ToolCallDelta(0, "{}"), ToolCallFinished(0)]
CALLED = replace(PAUSED, reason="tool_calls")


@pytest.mark.parametrize("request_", [TOOLS, REQUIRED, FORMAT])
def test_the_form_of_a_paused_run_is_passed_on(request_: OutputRequest) -> None:
    reader = reader_of(request_)
    assert read(reader, TextDelta("Draft."), *ASKED, CALLED) == [TextDelta("Draft."), *ASKED, CALLED]
    assert reader.repair is None


@pytest.mark.parametrize("request_", [TOOLS, REQUIRED, FORMAT])
def test_the_form_of_a_paused_run_is_text(request_: OutputRequest) -> None:
    reader = reader_of(request_)
    assert read(reader, TextDelta("Draft. "), FixedTextDelta("Form"), PAUSED) == [TextDelta("Draft. Form"), PAUSED]


def test_calls_of_the_model_come_before_the_form() -> None:
    arguments = '{"city": "Paris"}'
    assert read(reader_of(TOOLS), TextDelta(CALL), *ASKED, CALLED) == [*call(0, arguments), CALLED]
    form = FixedTextDelta("Form")
    assert read(reader_of(TOOLS), TextDelta(CALL), form, PAUSED) == [*call(0, arguments), CALLED]
    (started, broken, finished, last) = read(reader_of(TOOLS), TextDelta(BROKEN), *ASKED, CALLED)
    assert (started, broken, finished, last) == (*call(0, '{"city": "Pa'), CALLED)


def test_a_broken_call_of_a_paused_run_is_dropped_with_its_text() -> None:
    assert read(reader_of(TOOLS, streamed=False), TextDelta(BROKEN), *ASKED, CALLED) == [*ASKED, CALLED]
    both: list[Event] = [TextDelta(BROKEN), FixedTextDelta("Form"), PAUSED]
    assert read(reader_of(TOOLS, streamed=False), *both) == [TextDelta("Form"), PAUSED]


def test_a_repair_that_pauses() -> None:
    reader = reader_of(FORMAT)
    assert read(reader, TextDelta("no JSON"), END) == []
    *rest, last = read(reader, TextDelta("Draft."), *ASKED, CALLED)
    assert rest == [TextDelta("Draft."), *ASKED]
    usage = Usage(20, 10, 30)
    assert last == replace(CALLED, usage=usage, repairs=Repairs(1, END.usage))
