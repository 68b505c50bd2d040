"""Reads tool calls and formatted answers out of the text of a turn.

An ``OutputReader`` filters the events of a turn. Text streams until a call begins, and a call's arguments stream as the
model writes them. They are held back until they are valid if the tool is strict or a call is required, or if the client
gets the whole answer at once. The text of an answer with a format is held back until its end.

Invalid output is corrected by another run, which asks ``repair``; its events go through the same reader. After
``max_repairs`` such runs an invalid call of a strict tool, a missing call, or an invalid answer fails the turn. Any
other invalid call reaches the client as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from openai_dify_proxy.errors import ProxyError, ResponseFormatInvalid, ToolCallInvalid, UpstreamFailed
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
from openai_dify_proxy.tools.answer_json import errors_of_answer, fitting_outputs, json_in
from openai_dify_proxy.tools.output_run import OutputCall, OutputRun, RejectedRun
from openai_dify_proxy.tools.parsing import CallParser
from openai_dify_proxy.tools.repair_questions import CallFault, calls_question, format_question, missing_call_question
from openai_dify_proxy.tools.schemas import compile_schema
from openai_dify_proxy.translate.dify.instructions import without_instructions
from openai_dify_proxy.translate.dify.usage import sum_usage
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool

MAX_CALLS = 128
"""Calls of one turn; a model that writes more is stopped."""

_UNCLOSED = "The text has no </tool_call> behind it."


class OutputReader:
    """Filters the events of one turn, its repairs included.

    ``repair`` is the question of the run that must follow, None if none must. ``cut`` is true if the run has to be
    stopped, since the model goes on after its last call.
    """

    __slots__ = (
        "_calls",
        "_format",
        "_max_repairs",
        "_moderated",
        "_new_id",
        "_on_fitting_outputs",
        "_rejected",
        "_repair_usage",
        "_repairs",
        "_request",
        "_run",
        "_streamed",
        "_tools",
        "_usage",
        "cut",
        "repair",
    )

    def __init__(
        self,
        request: OutputRequest,
        *,
        streamed: bool,
        new_id: Callable[[], str],
        max_repairs: int = 1,
        on_fitting_outputs: Callable[[], None] | None = None,
    ) -> None:
        """``streamed`` says whether the client receives events before the end; ``new_id`` returns ids of calls.

        ``on_fitting_outputs`` is called if the outputs of a workflow are the formatted answer.
        """
        self.cut = False
        self.repair: str | None = None
        self._request = request
        self._tools = {tool.name: tool for tool in callable_tools(request)}
        self._format = request.answer_format
        self._streamed = streamed
        self._new_id = new_id
        self._max_repairs = max_repairs
        self._on_fitting_outputs = on_fitting_outputs
        self._repairs = 0
        self._usage: Usage | None = None
        self._repair_usage: Usage | None = None
        self._calls = 0
        self._moderated = False
        self._rejected: RejectedRun | None = None
        self._run = self._new_run()

    @property
    def rejected(self) -> str:
        """The text that ``repair`` is about."""
        return "" if self._rejected is None else "".join(self._rejected.run.raw)

    def filter(self, events: Sequence[Event]) -> list[Event]:
        """Return the events for the client. The last one of a turn is ``TurnFinished`` or ``TurnFailed``.

        At the end of a run that another one must follow, the result lacks that event.
        """
        out: list[Event] = []
        self.repair = None
        for event in events:
            self._filter_one(event, out)
            if self.cut:
                end = next((event for event in events if isinstance(event, TurnFinished)), None)
                self._finish(TurnFinished("stop", None if end is None else end.usage), out)
                break
            if out and isinstance(out[-1], TurnFailed):
                break
        return out

    def _filter_one(self, event: Event, out: list[Event]) -> None:
        match event:
            case FixedTextDelta(text):
                self._add_fixed_text(without_instructions(text), out)
            case TextDelta(text):
                self._read(self._run.feed(text), out)
            case AgentThoughtDelta():
                out.append(event)
            case ReasoningDelta(text):
                self._run.parser.feed_reasoning(text)
                out.append(event)
            case TextReplaced():
                self._replace(event, out)
            case ToolCallStarted() | ToolCallDelta() | ToolCallFinished():
                self._ask_for_form(event, out)
            case TurnFinished(human_input=HumanInput()):
                self._pause(event, out)
            case TurnFinished():
                self._finish(event, out)
            case TurnFailed() if self._rejected is not None:
                self._give_up(self._rejected, out)
            case _:
                out.append(event)

    @property
    def _required(self) -> bool:
        return self._request.choice.mode == "required"

    def _new_run(self) -> OutputRun:
        tools = tuple(self._tools.values())
        return OutputRun(CallParser(tools, new_id=self._new_id, forced=self._required))

    # Text and calls

    def _read(self, parsed: Sequence[Event], out: list[Event]) -> None:
        for event in parsed:
            match event:
                case TextDelta(text):
                    self._run.passed += len(text)
                    self._add_text(text, out)
                case ToolCallStarted():
                    self._begin_call(event, out)
                case ToolCallDelta(_, text):
                    self._add_arguments(text, out)
                case _:
                    self._end_call(out)
            if self.cut:
                return
        self.cut = self._run.parser.cut
        if self._run.fixed and not self._run.parser.reading:
            self._add_text(self._run.take_fixed(), out)

    def _add_fixed_text(self, text: str, out: list[Event]) -> None:
        """Add text that is not the model's. Behind a call it is cut, as the model's text is."""
        run = self._run
        if not run.parser.reading:
            self._read(run.parser.flush(), out)
        if run.parser.reading:
            run.fixed.append(text)
        else:
            self._add_text(text, out)

    def _add_text(self, text: str, out: list[Event]) -> None:
        """Add text of the answer. That of a repair is dropped: the client has the text of the first run."""
        if self._format is not None:
            self._run.answer.append(text)
        elif not self._repairs:
            out.append(TextDelta(text))

    def _begin_call(self, event: ToolCallStarted, out: list[Event]) -> None:
        tool = self._tools[event.name]
        streams = self._streamed and not (self._required or tool.strict or self._repairs)
        started = ToolCallStarted(self._calls, event.id, event.name, event.custom)
        self._run.call = OutputCall(started, tool, streams)
        if streams:
            out.append(started)

    def _add_arguments(self, text: str, out: list[Event]) -> None:
        call = self._run.open_call
        call.parts.append(text)
        if call.streams:
            out.append(ToolCallDelta(call.started.index, text))

    def _end_call(self, out: list[Event]) -> None:
        run = self._run
        call, run.call = run.open_call, None
        if call.streams:
            out.append(ToolCallFinished(call.started.index))
        elif call.check():
            out += call.events()
        else:
            run.invalid.append(call)
            return
        self._calls += 1
        self.cut = not self._request.parallel or self._calls >= MAX_CALLS

    def _replace(self, event: TextReplaced, out: list[Event]) -> None:
        """Apply a replacement by a moderation, or by a retried node.

        A client that has calls of the first try gets nothing of the second: calls cannot be revoked.
        """
        if event.moderated:
            self._moderated = True
            self._run = self._new_run()
            out.append(event if self._format is None else RefusalDelta(event.text))
        elif self._run.call is not None and self._run.call.streams:
            message = "The app's model was started again after it had begun a tool call."
            out.append(TurnFailed(UpstreamFailed(message, started=True)))
        elif self._calls:
            self._run = OutputRun(CallParser((), new_id=self._new_id), superseded=True)
        else:
            self._run = self._new_run()
            parsed = self._run.feed(event.text)
            if self._format is None and not self._repairs:
                text = "".join(part.text for part in parsed if isinstance(part, TextDelta))
                self._run.passed = len(text)
                out.append(TextReplaced(text, moderated=False))
                parsed = [part for part in parsed if not isinstance(part, TextDelta)]
            self._read(parsed, out)

    # The end of a run

    @property
    def usage(self) -> Usage | None:
        """The token counts of all runs that have ended."""
        return self._usage

    def _finish(self, event: TurnFinished, out: list[Event]) -> None:
        if not self.cut:
            self._read(self._run.parser.finish(), out)
        if self._run.call is not None:
            event = self._end_truncated_call(self._run.call, event, out)
        if self._run.fixed and not (self._calls or self._run.invalid):
            self._add_text(self._run.take_fixed(), out)
        self._usage = sum_usage(self._usage, event.usage)
        if self._repairs:
            self._repair_usage = sum_usage(self._repair_usage, event.usage)
        if self._rejected is not None and self._has_no_calls_for(self._rejected):
            self._run = self._rejected.run
        error = self._error(event, out)
        if error is None:
            self._end(event, out)
            return
        self._rejected = RejectedRun(self._run, event, error, self._calls)
        if self._repairs < self._max_repairs:
            self._repairs += 1
            self.cut = False
            self.repair = self._repair_question()
            self._run = self._new_run()
        else:
            self._give_up(self._rejected, out)

    def _ask_for_form(self, event: ToolCallStarted | ToolCallDelta | ToolCallFinished, out: list[Event]) -> None:
        """Pass on the call for a form, unless the model has called tools, whose results come first."""
        if isinstance(event, ToolCallStarted):
            self._release_paused(out)
        if not self._calls:
            out.append(event)

    def _pause(self, event: TurnFinished, out: list[Event]) -> None:
        """End the turn of a paused run. Its output is not complete, so that it is neither checked nor corrected."""
        self._release_paused(out)
        self._usage = sum_usage(self._usage, event.usage)
        if self._repairs:
            self._repair_usage = sum_usage(self._repair_usage, event.usage)
        repairs = Repairs(self._repairs, self._repair_usage) if self._repairs else None
        reason = "tool_calls" if self._calls else event.reason
        out.append(replace(event, reason=reason, usage=self._usage, repairs=repairs, outputs=None))

    def _release_paused(self, out: list[Event]) -> None:
        """Emit what was held back of a run that has paused, and forget it."""
        self._read(self._run.parser.finish(), out)
        if self._run.call is not None and self._run.call.streams:
            out.append(ToolCallFinished(self._run.call.started.index))
            self._calls += 1
        if self._run.fixed and not self._calls:
            self._add_text(self._run.take_fixed(), out)
        if self._run.answer:
            out.append(TextDelta("".join(self._run.answer)))
        self._run = self._new_run()

    def _has_no_calls_for(self, rejected: RejectedRun) -> bool:
        """Return whether the model has answered the request for corrected calls without any call."""
        return bool(
            rejected.run.invalid and self._format is None and not self._run.invalid and self._calls == rejected.calls
        )

    def _give_up(self, rejected: RejectedRun, out: list[Event]) -> None:
        """End the turn with invalid output: fail, or emit it as the model wrote it."""
        self._run = rejected.run
        if self._format is not None or self._required or any(call.tool.strict for call in rejected.run.invalid):
            out.append(TurnFailed(rejected.error))
        else:
            self._release(out)
            self._end(rejected.event, out)

    def _end_truncated_call(self, call: OutputCall, event: TurnFinished, out: list[Event]) -> TurnFinished:
        """End a call whose arguments broke off. A client that has them already learns that the answer was cut."""
        self._run.call = None
        if not call.streams:
            call.errors = [_UNCLOSED if call.tool.custom else "The arguments end in the middle of a value."]
            self._run.invalid.append(call)
            return event
        out.append(ToolCallFinished(call.started.index))
        self._calls += 1
        return replace(event, reason="length")

    def _error(self, event: TurnFinished, out: list[Event]) -> ProxyError | None:
        """Return the error of a missing or invalid output; emit a formatted answer that is valid."""
        if self._moderated:
            return None
        if event.reason == "length":  # the model may not write more
            self._release(out)
            return None
        if self._calls or self._required or self._run.invalid:
            return self._call_error()
        return None if self._format is None else self._format_error(self._format, event, out)

    def _call_error(self) -> ProxyError | None:
        if invalid := self._run.invalid:
            errors = [f"{call.tool.name}: {error}" for call in invalid for error in call.errors]
            return ToolCallInvalid(f"The model wrote an invalid tool call. {' '.join(errors)}", started=True)
        if not self._calls:
            return ToolCallInvalid("The model wrote no tool call, although the request requires one.", started=True)
        return None

    def _format_error(self, answer_format: AnswerFormat, event: TurnFinished, out: list[Event]) -> ProxyError | None:
        """Emit the answer as JSON. The outputs of a workflow are the answer if they fit the schema."""
        validator = None if answer_format.schema is None else compile_schema(answer_format.schema)
        text = fitting_outputs(event.outputs, validator)
        if text is not None and self._on_fitting_outputs is not None:
            self._on_fitting_outputs()
        errors: list[str] = []
        if text is None:
            text = json_in("".join(self._run.answer) if event.answer is None else event.answer, validator)
            errors = errors_of_answer(text, validator)
        if text is None or errors:
            self._run.errors = errors
            message = f"The model's answer does not have the required format. {' '.join(errors)}"
            return ResponseFormatInvalid(message, started=True)
        out.append(TextDelta(text))
        return None

    def _repair_question(self) -> str:
        run = self._run
        if run.invalid:
            return calls_question([CallFault(call.tool, call.errors) for call in run.invalid])
        if self._format is None or self._required:
            return missing_call_question(self._request)
        return format_question(self._format, run.errors)

    def _release(self, out: list[Event]) -> None:
        """Emit what was held back, as the model wrote it."""
        run = self._run
        if self._format is not None:
            out.append(TextDelta("".join(run.answer)))
        elif all(call.is_readable for call in run.invalid):
            for call in run.invalid:
                call.started = replace(call.started, index=self._calls)
                out += call.events()
                self._calls += 1
        elif not self._calls:
            out.append(TextDelta("".join(run.raw)[run.passed :]))

    def _end(self, event: TurnFinished, out: list[Event]) -> None:
        reason = event.reason
        if self._calls and reason == "stop":
            reason = "tool_calls"
        elif self._moderated and self._format is not None:
            reason = "stop"  # the refusal is the answer
        repairs = Repairs(self._repairs, self._repair_usage) if self._repairs else None
        one_text = self._format is None and not self._repairs
        answer = self._visible(event.answer) if event.answer is not None and one_text else None
        out.append(TurnFinished(reason, self._usage, answer, repairs))

    def _visible(self, answer: str) -> str:
        """Return the text of a whole answer without its calls."""
        parser = self._new_run().parser
        return "".join(part.text for part in (*parser.feed(answer), *parser.finish()) if isinstance(part, TextDelta))


def callable_tools(request: OutputRequest) -> tuple[Tool, ...]:
    """Return the tools that ``tool_choice`` permits the model to call."""
    if request.choice.mode == "none":
        return ()
    names = request.choice.names
    return tuple(tool for tool in request.tools if not names or tool.name in names)
