"""Encode turn events as the events of a streamed response.

Frames are ``event: <type>``, ``data: {json}`` and an empty line, numbered from 0 without gaps. One item is open at a
time: first reasoning, if there is any, then the message. There is a single message, since clients show each message as
a separate answer. Reasoning that arrives after the start of the message therefore follows as an item after it, and
workflow steps at that time are omitted.

A stream cannot retract text: the text of the message is the sum of its deltas, even after a moderation replaced the
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import json
from msgspec.structs import replace

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import (
    Event,
    FileProduced,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnFinished,
    TurnIds,
)
from openai_dify_proxy.translate.answer import Answer, file_link, step_line
from openai_dify_proxy.translate.openai.chat_streams import DONE, missing_text
from openai_dify_proxy.translate.openai.responses_answers import (
    item_status,
    message_id,
    message_item,
    reasoning_id,
    reasoning_item,
    response_object,
    status_of,
    url_citation_annotations,
)
from openai_dify_proxy.wire.openai.chat import ErrorObject
from openai_dify_proxy.wire.openai.responses import (
    AnnotationAddedEvent,
    ContentPartEvent,
    ErrorEvent,
    KeepaliveEvent,
    OutputItem,
    OutputItemEvent,
    OutputText,
    OutputTextDeltaEvent,
    OutputTextDoneEvent,
    Response,
    ResponseEvent,
    Status,
    StreamEvent,
    SummaryPartEvent,
    SummaryText,
    SummaryTextDeltaEvent,
    SummaryTextDoneEvent,
)

_encode_text = json.Encoder().encode


class ResponsesStreamEncoder:
    """Events of ``POST /v1/responses``, including responses in the background.

    ``initial`` is the result of ``begin_response``. ``now`` returns the time in whole seconds and is called once, at
    the end. After the end, ``response`` is the final response.
    """

    __slots__ = (
        "_delta",
        "_initial",
        "_late_reasoning",
        "_message",
        "_now",
        "_number",
        "_output",
        "_reasoning",
        "answer",
        "response",
    )

    def __init__(self, initial: Response, *, now: Callable[[], int]) -> None:
        self._initial = initial
        self._now = now
        self._number = 0
        self._output: list[OutputItem] = []  # the closed items
        self._reasoning: list[str] | None = None  # texts of the open reasoning item
        self._message: list[str] | None = None  # texts of the message, once it is open
        self._late_reasoning: list[str] = []
        self._delta = b""  # a frame with placeholders for its number and its text
        self.answer = Answer()
        self.response = initial

    @property
    def sent(self) -> str:
        """The text that the client has received."""
        return "".join(self._message or ())

    def open(self) -> bytes:
        if self._number:
            return b""
        frames: list[bytes] = []
        self._emit(ResponseEvent(type="response.created", response=self._initial), frames)
        if self._initial.background:
            self._emit(ResponseEvent(type="response.queued", response=self._initial), frames)
        running = replace(self._initial, status="in_progress")
        self._emit(ResponseEvent(type="response.in_progress", response=running), frames)
        return b"".join(frames)

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        frames: list[bytes] = []
        for event in events:
            if type(event) is TextDelta:
                text = event.text
                self.answer.add_text(text)
                if self._message is None or not text:
                    self._add_text(text, frames)
                else:
                    self._message.append(text)
                    frames.append(self._delta % (self._number, _encode_text(text)))
                    self._number += 1
            else:
                self._encode_other(event, ids, frames)
        return b"".join(frames)

    def heartbeat(self) -> bytes:
        """Return a ``keepalive`` event, the only one without content that openai-node accepts.

        It repeats the previous number, so that numbers do not depend on pauses, and a client that resumes after it
        misses nothing.
        """
        return self.open() + encode_keepalive(self._number)

    def cancel(self, ids: TurnIds) -> bytes:
        """Return the end of a stream after its turn was cancelled.

        OpenAI has no event for that, and clients fail on unknown events: the stream ends with ``response.incomplete``,
        and only the status of the response is ``cancelled``.
        """
        frames = [self.open()]
        self._end("cancelled", ids, frames)
        return b"".join(frames)

    def _encode_other(self, event: Event, ids: TurnIds, frames: list[bytes]) -> None:
        before = self.answer.text if isinstance(event, TextReplaced) else ""
        after_text = isinstance(event, FileProduced) and self.answer.has_text
        self.answer.add_one(event)
        frames.append(self.open())
        match event:
            case ReasoningDelta(text):
                self._add_reasoning(text, frames)
            case StepChanged():
                if self._message is None:
                    self._add_reasoning(step_line(event), frames)
            case TextReplaced(text):
                self._add_text(missing_text(before, text), frames)
            case FileProduced():
                self._add_text(file_link(event, after_text), frames)
            case TurnFinished():
                self._open_message(frames)
                self._end(status_of(self.answer), ids, frames)
            case TurnFailed(error):
                self._fail(error, ids, frames)
            case _:
                pass  # citations follow at the end

    def _add_text(self, text: str, frames: list[bytes]) -> None:
        if not text:
            return
        message = self._open_message(frames) if self._message is None else self._message
        message.append(text)
        frames.append(self._delta % (self._number, _encode_text(text)))
        self._number += 1

    def _open_message(self, frames: list[bytes]) -> list[str]:
        if self._message is not None:
            return self._message
        frames.append(self.open())
        self._close_reasoning(frames)
        self._message = []
        item_id, index = message_id(self._initial.id), len(self._output)
        empty = replace(message_item(item_id, "", [], "in_progress"), content=[])
        self._emit(OutputItemEvent(type="response.output_item.added", output_index=index, item=empty), frames)
        self._emit(
            ContentPartEvent(
                type="response.content_part.added", item_id=item_id, output_index=index, part=OutputText()
            ),
            frames,
        )
        delta = _frame(OutputTextDeltaEvent(item_id=item_id, output_index=index, delta="")).replace(b"%", b"%%")
        delta = delta.replace(b'"sequence_number":0', b'"sequence_number":%d', 1)
        self._delta = delta.replace(b'"delta":""', b'"delta":%b')
        return self._message

    def _close_message(self, status: Status, frames: list[bytes]) -> None:
        text = self.sent
        annotations = url_citation_annotations(self.answer, len(text))
        item_id, index = message_id(self._initial.id), len(self._output)
        for at, annotation in enumerate(annotations):
            self._emit(
                AnnotationAddedEvent(item_id=item_id, output_index=index, annotation_index=at, annotation=annotation),
                frames,
            )
        self._emit(OutputTextDoneEvent(item_id=item_id, output_index=index, text=text), frames)
        part = OutputText(annotations=annotations, text=text)
        self._emit(
            ContentPartEvent(type="response.content_part.done", item_id=item_id, output_index=index, part=part), frames
        )
        self._close_item(message_item(item_id, text, annotations, item_status(status)), frames)

    def _add_reasoning(self, text: str, frames: list[bytes]) -> None:
        if self._message is None:
            self._emit_reasoning(text, frames)
        else:
            self._late_reasoning.append(text)

    def _emit_reasoning(self, text: str, frames: list[bytes]) -> None:
        reasoning = self._open_reasoning(frames) if self._reasoning is None else self._reasoning
        reasoning.append(text)
        self._emit(
            SummaryTextDeltaEvent(item_id=self._reasoning_id, output_index=len(self._output), delta=text), frames
        )

    def _open_reasoning(self, frames: list[bytes]) -> list[str]:
        self._reasoning = []
        item_id, index = self._reasoning_id, len(self._output)
        empty = replace(reasoning_item(item_id, ""), summary=[])
        self._emit(OutputItemEvent(type="response.output_item.added", output_index=index, item=empty), frames)
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

    @property
    def _reasoning_id(self) -> str:
        """The id of the next reasoning item; reasoning after the message has another id than reasoning before it."""
        item_id = reasoning_id(self._initial.id)
        return f"{item_id}_{len(self._output)}" if self._output else item_id

    def _close_item(self, item: OutputItem, frames: list[bytes]) -> None:
        done = OutputItemEvent(type="response.output_item.done", output_index=len(self._output), item=item)
        self._emit(done, frames)
        self._output.append(item)

    def _end(self, status: Status, ids: TurnIds, frames: list[bytes]) -> None:
        self._close_reasoning(frames)
        if self._message is not None:
            self._close_message(status, frames)
        if self._late_reasoning:
            self._emit_reasoning("".join(self._late_reasoning), frames)
            self._close_reasoning(frames)
        self.response = response_object(
            self._initial, self.answer, ids, status=status, completed_at=self._now(), output=self._output
        )
        self._emit(
            ResponseEvent(
                type="response.completed" if status == "completed" else "response.incomplete", response=self.response
            ),
            frames,
        )
        frames.append(DONE)

    def _fail(self, error: ProxyError, ids: TurnIds, frames: list[bytes]) -> None:
        self.response = response_object(
            self._initial, self.answer, ids, status="failed", output=self._partial_output("failed")
        )
        frames.append(encode_failure(self.response, error, self._number))

    def _partial_output(self, status: Status) -> list[OutputItem]:
        """Return the closed items, and the open one with its text so far."""
        if self._reasoning is not None:
            return [*self._output, reasoning_item(self._reasoning_id, "".join(self._reasoning))]
        if self._message is not None:
            return [*self._output, message_item(message_id(self._initial.id), self.sent, [], item_status(status))]
        return self._output

    def _emit(self, event: StreamEvent, frames: list[bytes]) -> None:
        event.sequence_number = self._number
        self._number += 1
        frames.append(_frame(event))


def encode_keepalive(number: int) -> bytes:
    """Return a heartbeat; ``number`` is the number of the next frame."""
    return _frame(KeepaliveEvent(sequence_number=number - 1))


def encode_failure(failed: Response, error: ProxyError, number: int) -> bytes:
    """Return the last two frames of a failed stream; ``number`` is the number of the first.

    No ``[DONE]`` follows, since it marks a complete answer.
    """
    ending = ResponseEvent(type="response.failed", sequence_number=number + 1, response=failed)
    return encode_stream_error(error, number) + _frame(ending)


def encode_stream_error(error: ProxyError, number: int) -> bytes:
    """Return the last frame of an interrupted stream; the response itself may continue."""
    error_object = ErrorObject(error.message, error.type, error.param, error.code)
    return _frame(ErrorEvent(sequence_number=number, error=error_object))


def _frame(event: StreamEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), json.encode(event))
