"""Encode the output items of a streamed response: reasoning, the message, and the calls.

One item is open at a time: first reasoning, if there is any, then the message, then the calls. There is a single
message, since clients show each message as a separate answer, and none beside calls without a text. Reasoning that
arrives after the start of the message therefore follows as an item after it, before or after a call.

The message ends where the first call starts; a text or a refusal after that is left out, as is a text after a refusal.
"""

from __future__ import annotations

from msgspec import Struct, json
from msgspec.structs import replace

from openai_dify_proxy.events import ToolCallDelta, ToolCallStarted
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.responses_answers import (
    call_item,
    call_item_id,
    item_status,
    message_id,
    message_item,
    reasoning_id,
    reasoning_item,
    url_citation_annotations,
)
from openai_dify_proxy.translate.openai.responses_frames import delta_template, encode_event
from openai_dify_proxy.translate.turn_request import ToolCall
from openai_dify_proxy.wire.openai.responses import (
    AnnotationAddedEvent,
    ArgumentsDoneEvent,
    CallDeltaEvent,
    ContentPartEvent,
    CustomInputDoneEvent,
    ItemStatus,
    OutputItem,
    OutputItemEvent,
    OutputPart,
    OutputRefusal,
    OutputText,
    OutputTextDeltaEvent,
    OutputTextDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    Status,
    StreamEvent,
    SummaryPartEvent,
    SummaryText,
    SummaryTextDeltaEvent,
    SummaryTextDoneEvent,
)

encode_text = json.Encoder().encode


class _OpenCall(Struct):
    """The open item of a call; ``parts`` are its arguments, ``delta`` is the template of their frames."""

    started: ToolCallStarted
    item_id: str
    parts: list[str]
    delta: bytes

    @property
    def call(self) -> ToolCall:
        return ToolCall(self.started.id, self.started.name, "".join(self.parts), self.started.custom)


class OutputEncoder:
    """The items of one response, as events that are numbered from 0 without gaps. Its methods append to ``frames``."""

    __slots__ = (
        "_answering",
        "_call",
        "_calling",
        "_delta",
        "_late_reasoning",
        "_number",
        "_output",
        "_parts",
        "_reasoning",
        "_refusal",
        "_response_id",
        "_sent",
        "_text",
        "answer",
    )

    def __init__(self, response_id: str) -> None:
        self._response_id = response_id
        self._number = 0
        self._output: list[OutputItem] = []  # the closed items
        self._answering = False  # whether the message or a call has started
        self._calling = False  # whether a call has started
        self._reasoning: list[str] | None = None  # texts of the open reasoning item
        self._late_reasoning: list[str] = []
        self._parts: list[OutputPart] = []  # the closed parts of the open message
        self._text: list[str] | None = None  # deltas of the open text part
        self._refusal: list[str] | None = None  # deltas of the open refusal part
        self._sent = ""  # the text of the closed text part
        self._call: _OpenCall | None = None
        self._delta = b""  # the template of the frames of text
        self.answer = Answer()

    # The message

    def _add_text(self, text: str, frames: list[bytes]) -> None:
        if not text or self._calling or self._refusal is not None:
            return
        parts = self._open_text(frames) if self._text is None else self._text
        parts.append(text)
        frames.append(self._delta % (self._number, encode_text(text)))
        self._number += 1

    def _open_text(self, frames: list[bytes]) -> list[str]:
        self._open_message(frames)
        self._text = []
        item_id, index = message_id(self._response_id), len(self._output)
        self._emit(
            ContentPartEvent(
                type="response.content_part.added", item_id=item_id, output_index=index, part=OutputText()
            ),
            frames,
        )
        self._delta = delta_template(OutputTextDeltaEvent(item_id=item_id, output_index=index, delta=""))
        return self._text

    def _close_text(self, frames: list[bytes]) -> None:
        if self._text is None:
            return
        self._sent = text = "".join(self._text)
        self._text = None
        annotations = url_citation_annotations(self.answer, text)
        item_id, index = message_id(self._response_id), len(self._output)
        for at, annotation in enumerate(annotations):
            self._emit(
                AnnotationAddedEvent(item_id=item_id, output_index=index, annotation_index=at, annotation=annotation),
                frames,
            )
        self._emit(OutputTextDoneEvent(item_id=item_id, output_index=index, text=text), frames)
        self._close_part(OutputText(annotations=annotations, text=text), frames)

    def _add_refusal(self, text: str, frames: list[bytes]) -> None:
        if not text or self._calling:
            return
        refusal = self._open_refusal(frames) if self._refusal is None else self._refusal
        refusal.append(text)
        self._emit(
            RefusalDeltaEvent(
                item_id=message_id(self._response_id),
                output_index=len(self._output),
                content_index=len(self._parts),
                delta=text,
            ),
            frames,
        )

    def _open_refusal(self, frames: list[bytes]) -> list[str]:
        self._close_text(frames)
        if not self._parts:
            self._open_message(frames)
        self._refusal = []
        self._emit(
            ContentPartEvent(
                type="response.content_part.added",
                item_id=message_id(self._response_id),
                output_index=len(self._output),
                content_index=len(self._parts),
                part=OutputRefusal(),
            ),
            frames,
        )
        return self._refusal

    def _close_refusal(self, frames: list[bytes]) -> None:
        if self._refusal is None:
            return
        refusal = "".join(self._refusal)
        self._refusal = None
        self._emit(
            RefusalDoneEvent(
                item_id=message_id(self._response_id),
                output_index=len(self._output),
                content_index=len(self._parts),
                refusal=refusal,
            ),
            frames,
        )
        self._close_part(OutputRefusal(refusal=refusal), frames)

    def _close_part(self, part: OutputPart, frames: list[bytes]) -> None:
        self._emit(
            ContentPartEvent(
                type="response.content_part.done",
                item_id=message_id(self._response_id),
                output_index=len(self._output),
                content_index=len(self._parts),
                part=part,
            ),
            frames,
        )
        self._parts.append(part)

    def _open_message(self, frames: list[bytes]) -> None:
        self._close_reasoning(frames)
        self._answering = True
        self._add_item(message_item(message_id(self._response_id), [], "in_progress"), frames)

    def _close_message(self, status: Status, frames: list[bytes]) -> None:
        """Close the message if it is open."""
        self._close_text(frames)
        self._close_refusal(frames)
        if self._parts:
            item = message_item(message_id(self._response_id), self._parts, item_status(status))
            self._parts = []
            self._close_item(item, frames)

    # Calls

    def _start_call(self, started: ToolCallStarted, frames: list[bytes]) -> None:
        self._close_reasoning(frames)
        self._close_message("completed", frames)
        self._close_call("completed", frames)
        self._emit_late_reasoning(frames)
        self._answering = self._calling = True
        item_id = call_item_id(self._response_id, started.index, custom=started.custom)
        template = delta_template(
            CallDeltaEvent(
                type="response.custom_tool_call_input.delta"
                if started.custom
                else "response.function_call_arguments.delta",
                item_id=item_id,
                output_index=len(self._output),
                delta="",
            )
        )
        self._call = _OpenCall(started, item_id, [], template)
        self._add_item(call_item(item_id, self._call.call, "in_progress"), frames)

    def _add_arguments(self, delta: ToolCallDelta, frames: list[bytes]) -> None:
        if (call := self._call) is not None:
            call.parts.append(delta.text)
            frames.append(call.delta % (self._number, encode_text(delta.text)))
            self._number += 1

    def _close_call(self, status: Status, frames: list[bytes]) -> None:
        """Close the call if one is open."""
        if self._call is None:
            return
        item_id, call, index = self._call.item_id, self._call.call, len(self._output)
        self._call = None
        if call.custom:
            self._emit(CustomInputDoneEvent(item_id=item_id, output_index=index, input=call.arguments), frames)
        else:
            self._emit(ArgumentsDoneEvent(item_id=item_id, output_index=index, arguments=call.arguments), frames)
        self._close_item(call_item(item_id, call, item_status(status)), frames)

    # Reasoning

    def _add_reasoning(self, text: str, frames: list[bytes]) -> None:
        if self._answering:
            self._late_reasoning.append(text)
        else:
            self._emit_reasoning(text, frames)

    def _emit_reasoning(self, text: str, frames: list[bytes]) -> None:
        reasoning = self._open_reasoning(frames) if self._reasoning is None else self._reasoning
        reasoning.append(text)
        self._emit(
            SummaryTextDeltaEvent(item_id=self._reasoning_id, output_index=len(self._output), delta=text), frames
        )

    def _open_reasoning(self, frames: list[bytes]) -> list[str]:
        self._reasoning = []
        item_id, index = self._reasoning_id, len(self._output)
        self._add_item(replace(reasoning_item(item_id, ""), summary=[]), frames)
        self._emit(
            SummaryPartEvent(
                type="response.reasoning_summary_part.added", item_id=item_id, output_index=index, part=SummaryText()
            ),
            frames,
        )
        return self._reasoning

    def _close_reasoning(self, frames: list[bytes]) -> None:
        if self._reasoning is None:
            return
        text = "".join(self._reasoning)
        item_id, index = self._reasoning_id, len(self._output)
        self._reasoning = None
        self._emit(SummaryTextDoneEvent(item_id=item_id, output_index=index, text=text), frames)
        part = SummaryText(text=text)
        self._emit(
            SummaryPartEvent(
                type="response.reasoning_summary_part.done", item_id=item_id, output_index=index, part=part
            ),
            frames,
        )
        self._close_item(reasoning_item(item_id, text), frames)

    def _emit_late_reasoning(self, frames: list[bytes]) -> None:
        if self._late_reasoning:
            self._emit_reasoning("".join(self._late_reasoning), frames)
            self._late_reasoning = []
            self._close_reasoning(frames)

    @property
    def _reasoning_id(self) -> str:
        """The id of the next reasoning item; reasoning after the message has another id than reasoning before it."""
        item_id = reasoning_id(self._response_id)
        return f"{item_id}_{len(self._output)}" if self._output else item_id

    # Items

    def _add_item(self, item: OutputItem, frames: list[bytes]) -> None:
        added = OutputItemEvent(type="response.output_item.added", output_index=len(self._output), item=item)
        self._emit(added, frames)

    def _close_item(self, item: OutputItem, frames: list[bytes]) -> None:
        done = OutputItemEvent(type="response.output_item.done", output_index=len(self._output), item=item)
        self._emit(done, frames)
        self._output.append(item)

    def _close_items(self, status: Status, frames: list[bytes]) -> None:
        self._close_reasoning(frames)
        self._close_message(status, frames)
        self._close_call(status, frames)
        self._emit_late_reasoning(frames)

    def _partial_output(self, status: Status) -> list[OutputItem]:
        """Return the closed items, and the open one with its content so far."""
        item = self._open_item(item_status(status))
        return self._output if item is None else [*self._output, item]

    def _open_item(self, status: ItemStatus) -> OutputItem | None:
        if self._reasoning is not None:
            return reasoning_item(self._reasoning_id, "".join(self._reasoning))
        if self._call is not None:
            return call_item(self._call.item_id, self._call.call, status)
        parts = self._parts.copy()
        if self._text is not None:
            parts.append(OutputText(text="".join(self._text)))
        if self._refusal is not None:
            parts.append(OutputRefusal(refusal="".join(self._refusal)))
        return message_item(message_id(self._response_id), parts, status) if parts else None

    def _emit(self, event: StreamEvent, frames: list[bytes]) -> None:
        event.sequence_number = self._number
        self._number += 1
        frames.append(encode_event(event))
