"""Turn events as the events of a streamed response.

Frames are ``event: <type>``, ``data: {json}`` and an empty line, numbered from 0 without gaps. One item is open at a
time: reasoning first, if there is any, then the message, which is one whatever happens in between, since clients show
each as an answer of its own. So what a model thinks after it began to answer is told after the message, and steps that
a workflow takes then are not told.

What was told cannot be taken back: the text of the message is what its deltas add up to, also where a moderation
replaced what the answer was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

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

_NUMBER = re.compile(rb'"sequence_number":(\d+)')


class ResponsesStreamEncoder:
    """Events of ``POST /v1/responses``, for one that runs in the background too.

    ``begun`` is the response as ``begin_response`` makes it. ``now`` gives the time in whole seconds and is asked once,
    at the end. After the end ``response`` is the response as it was told last.
    """

    __slots__ = (
        "_begun",
        "_delta",
        "_late",
        "_now",
        "_number",
        "_output",
        "_said",
        "_thought",
        "answer",
        "response",
    )

    def __init__(self, begun: Response, *, now: Callable[[], int]) -> None:
        self._begun = begun
        self._now = now
        self._number = 0
        self._output: list[OutputItem] = []  # the items that are closed
        self._thought: list[str] | None = None  # of the reasoning that is open
        self._said: list[str] | None = None  # of the message, once it was opened
        self._late: list[str] = []
        self._delta = b""  # a frame with places for its number and its text
        self.answer = Answer()
        self.response = begun

    @property
    def sent(self) -> str:
        """The assistant's text as the client got it."""
        return "".join(self._said or ())

    def open(self) -> bytes:
        if self._number:
            return b""
        frames: list[bytes] = []
        self._emit(ResponseEvent(type="response.created", response=self._begun), frames)
        if self._begun.background:
            self._emit(ResponseEvent(type="response.queued", response=self._begun), frames)
        running = replace(self._begun, status="in_progress")
        self._emit(ResponseEvent(type="response.in_progress", response=running), frames)
        return b"".join(frames)

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        frames: list[bytes] = []
        for event in events:
            if type(event) is TextDelta:
                text = event.text
                self.answer.say(text)
                if self._said is None or not text:
                    self._say(text, frames)
                else:
                    self._said.append(text)
                    frames.append(self._delta % (self._number, _encode_text(text)))
                    self._number += 1
            else:
                self._encode_rarer(event, ids, frames)
        return b"".join(frames)

    def heartbeat(self) -> bytes:
        """The one event that says nothing and that openai-node does not stumble over.

        It repeats the number before it. So numbers do not depend on silences, and a client that goes on reading after
        this number elsewhere misses nothing.
        """
        return self.open() + encode_keepalive(self._number)

    def cancel(self, ids: TurnIds) -> bytes:
        """The end of a stream whose turn was cancelled.

        There is no event for that, and clients stumble over unknown ones: it ends as an incomplete one, and only the
        response's status tells.
        """
        frames = [self.open()]
        self._end("cancelled", ids, frames)
        return b"".join(frames)

    def _encode_rarer(self, event: Event, ids: TurnIds, frames: list[bytes]) -> None:
        said = self.answer.text if isinstance(event, (TextReplaced, FileProduced)) else ""
        self.answer.add_one(event)
        frames.append(self.open())
        match event:
            case ReasoningDelta(text):
                self._think(text, frames)
            case StepChanged():
                if self._said is None:
                    self._think(step_line(event), frames)
            case TextReplaced(text):
                self._say(missing_text(said, text), frames)
            case FileProduced():
                self._say(file_link(event, bool(said)), frames)
            case TurnFinished():
                self._open_message(frames)
                self._end(status_of(self.answer), ids, frames)
            case TurnFailed(error):
                self._fail(error, ids, frames)
            case _:
                pass  # citations are told at the end

    def _say(self, text: str, frames: list[bytes]) -> None:
        if not text:
            return
        said = self._open_message(frames) if self._said is None else self._said
        said.append(text)
        frames.append(self._delta % (self._number, _encode_text(text)))
        self._number += 1

    def _open_message(self, frames: list[bytes]) -> list[str]:
        if self._said is not None:
            return self._said
        frames.append(self.open())
        self._close_reasoning(frames)
        self._said = []
        name, index = message_id(self._begun.id), len(self._output)
        empty = replace(message_item(name, "", [], "in_progress"), content=[])
        self._emit(OutputItemEvent(type="response.output_item.added", output_index=index, item=empty), frames)
        self._emit(
            ContentPartEvent(type="response.content_part.added", item_id=name, output_index=index, part=OutputText()),
            frames,
        )
        delta = _frame(OutputTextDeltaEvent(item_id=name, output_index=index, delta="")).replace(b"%", b"%%")
        delta = delta.replace(b'"sequence_number":0', b'"sequence_number":%d', 1)
        self._delta = delta.replace(b'"delta":""', b'"delta":%b')
        return self._said

    def _close_message(self, status: Status, frames: list[bytes]) -> None:
        text = self.sent
        notes = url_citation_annotations(self.answer, len(text))
        name, index = message_id(self._begun.id), len(self._output)
        for at, note in enumerate(notes):
            self._emit(
                AnnotationAddedEvent(item_id=name, output_index=index, annotation_index=at, annotation=note), frames
            )
        self._emit(OutputTextDoneEvent(item_id=name, output_index=index, text=text), frames)
        part = OutputText(annotations=notes, text=text)
        self._emit(
            ContentPartEvent(type="response.content_part.done", item_id=name, output_index=index, part=part), frames
        )
        self._close_item(message_item(name, text, notes, item_status(status)), frames)

    def _think(self, text: str, frames: list[bytes]) -> None:
        if self._said is None:
            self._reason(text, frames)
        else:
            self._late.append(text)

    def _reason(self, text: str, frames: list[bytes]) -> None:
        thought = self._open_reasoning(frames) if self._thought is None else self._thought
        thought.append(text)
        self._emit(
            SummaryTextDeltaEvent(item_id=self._reasoning_id, output_index=len(self._output), delta=text), frames
        )

    def _open_reasoning(self, frames: list[bytes]) -> list[str]:
        self._thought = []
        name, index = self._reasoning_id, len(self._output)
        empty = replace(reasoning_item(name, ""), summary=[])
        self._emit(OutputItemEvent(type="response.output_item.added", output_index=index, item=empty), frames)
        self._emit(
            SummaryPartEvent(
                type="response.reasoning_summary_part.added", item_id=name, output_index=index, part=SummaryText()
            ),
            frames,
        )
        return self._thought

    def _close_reasoning(self, frames: list[bytes]) -> None:
        if self._thought is None:
            return
        text = "".join(self._thought)
        name, index = self._reasoning_id, len(self._output)
        self._thought = None
        self._emit(SummaryTextDoneEvent(item_id=name, output_index=index, text=text), frames)
        part = SummaryText(text=text)
        self._emit(
            SummaryPartEvent(type="response.reasoning_summary_part.done", item_id=name, output_index=index, part=part),
            frames,
        )
        self._close_item(reasoning_item(name, text), frames)

    @property
    def _reasoning_id(self) -> str:
        """Of the reasoning at the place after the last item: that after the message has an id of its own."""
        name = reasoning_id(self._begun.id)
        return f"{name}_{len(self._output)}" if self._output else name

    def _close_item(self, item: OutputItem, frames: list[bytes]) -> None:
        done = OutputItemEvent(type="response.output_item.done", output_index=len(self._output), item=item)
        self._emit(done, frames)
        self._output.append(item)

    def _end(self, status: Status, ids: TurnIds, frames: list[bytes]) -> None:
        self._close_reasoning(frames)
        if self._said is not None:
            self._close_message(status, frames)
        if self._late:
            self._reason("".join(self._late), frames)
            self._close_reasoning(frames)
        self.response = response_object(
            self._begun, self.answer, ids, status=status, completed_at=self._now(), output=self._output
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
            self._begun, self.answer, ids, status="failed", output=self._partial_output("failed")
        )
        frames.append(encode_failure(self.response, error, self._number))

    def _partial_output(self, status: Status) -> list[OutputItem]:
        """The items that are closed, and the open one as far as it is."""
        if self._thought is not None:
            return [*self._output, reasoning_item(self._reasoning_id, "".join(self._thought))]
        if self._said is not None:
            return [*self._output, message_item(message_id(self._begun.id), self.sent, [], item_status(status))]
        return self._output

    def _emit(self, event: StreamEvent, frames: list[bytes]) -> None:
        event.sequence_number = self._number
        self._number += 1
        frames.append(_frame(event))


def encode_keepalive(number: int) -> bytes:
    """A heartbeat in a stream of which ``number`` is the next frame's."""
    return _frame(KeepaliveEvent(sequence_number=number - 1))


def encode_failure(failed: Response, error: ProxyError, number: int) -> bytes:
    """The last two frames of a stream that fails, of which ``number`` is the first's.

    No ``[DONE]`` follows, so that nobody takes it for an end.
    """
    ending = ResponseEvent(type="response.failed", sequence_number=number + 1, response=failed)
    return encode_stream_error(error, number) + _frame(ending)


def encode_stream_error(error: ProxyError, number: int) -> bytes:
    """The last frame of a stream that breaks off, while the response may go on."""
    told = ErrorObject(error.message, error.type, error.param, error.code)
    return _frame(ErrorEvent(sequence_number=number, error=told))


def frames_after(frames: bytes, starting_after: int | None) -> bytes:
    """Of kept frames of a stream, heartbeats not among them, those with a higher number; all if it is None.

    What an encoder gave once is kept as it is, and so a stream that is taken up again, wherever, has the very numbers
    and deltas of the first.
    """
    if starting_after is None:
        return frames
    return b"".join(frame for number, frame in _numbered(frames) if number is None or number > starting_after)


def next_number(frames: bytes) -> int:
    """The number of the frame that would come after these."""
    return max((number + 1 for number, _ in _numbered(frames) if number is not None), default=0)


def _numbered(frames: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Each frame with its number, which the last (``[DONE]``) has none of."""
    for frame in frames.split(b"\n\n")[:-1]:
        found = _NUMBER.search(frame)
        yield int(found[1]) if found else None, frame + b"\n\n"


def _frame(event: StreamEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), json.encode(event))
