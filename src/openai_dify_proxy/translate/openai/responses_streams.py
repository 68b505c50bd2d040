"""Encode turn events as the events of a streamed response.

A stream cannot retract text: the text of the message is the sum of its deltas, even after a moderation replaced the
answer. Workflow steps after the start of the answer are omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import (
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
)
from openai_dify_proxy.translate.answer import file_link, step_line
from openai_dify_proxy.translate.openai.chat_streams import DONE, NO_IDS, missing_text
from openai_dify_proxy.translate.openai.responses_answers import response_object, status_of
from openai_dify_proxy.translate.openai.responses_frames import encode_failure, encode_keepalive
from openai_dify_proxy.translate.openai.responses_output import OutputEncoder, encode_text
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.openai.responses import Response, ResponseEvent, Status


class ResponsesStreamEncoder(OutputEncoder):
    """Events of ``POST /v1/responses``, including responses in the background.

    ``initial`` is the result of ``begin_response``. ``now`` returns the time in whole seconds and is called once, at
    the end. ``prompt_characters`` is for the estimate of a usage that Dify does not report. After the end, ``response``
    is the final response.
    """

    __slots__ = ("_initial", "_now", "_open", "prompt_characters", "response")

    def __init__(self, initial: Response, *, now: Callable[[], int], prompt_characters: int = 0) -> None:
        super().__init__(initial.id)
        self._initial = initial
        self._now = now
        self._open = False
        self.prompt_characters = prompt_characters
        self.response = initial

    @property
    def reply(self) -> HistoryMessage:
        return self.answer.reply_with(self._sent or "".join(self._text or ()))

    def queue(self) -> bytes:
        """Return the first frames of a response in the background, which may end without ``open``."""
        if self._number:
            return b""
        frames: list[bytes] = []
        self._emit(ResponseEvent(type="response.created", response=self._initial), frames)
        if self._initial.background:
            self._emit(ResponseEvent(type="response.queued", response=self._initial), frames)
        return b"".join(frames)

    def open(self, ids: TurnIds = NO_IDS) -> bytes:
        if self._open:
            return b""
        self._open = True
        frames = [self.queue()]
        running = replace(self._initial, status="in_progress")
        self._emit(ResponseEvent(type="response.in_progress", response=running), frames)
        return b"".join(frames)

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        frames: list[bytes] = []
        for event in events:
            if type(event) is TextDelta:
                text = event.text
                self.answer.texts.append(text)
                if self._text is None or not text:
                    self._encode_first_text(text, frames)
                else:
                    self._text.append(text)
                    frames.append(self._delta % (self._number, encode_text(text)))
                    self._number += 1
            elif type(event) is ToolCallDelta:
                self.answer.add_arguments(event)
                self._add_arguments(event, frames)
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
        frames = [self._begin()]
        self._end("cancelled", ids, frames)
        return b"".join(frames)

    def _begin(self) -> bytes:
        """Return the frames before the end of a response, which is not in progress if it was only queued."""
        return b"" if self._number else self.open()

    def _encode_first_text(self, text: str, frames: list[bytes]) -> None:
        if text:
            frames.append(self.open())
            self._add_text(text, frames)

    def _encode_other(self, event: Event, ids: TurnIds, frames: list[bytes]) -> None:
        before = self.answer.text if isinstance(event, TextReplaced) else ""
        after_text = isinstance(event, FileProduced) and self.answer.has_text
        self.answer.add_one(event)
        frames.append(self._begin() if isinstance(event, TurnFailed) else self.open())
        match event:
            case ReasoningDelta(text):
                self._add_reasoning(text, frames)
            case StepChanged():
                if not self._answering:
                    self._add_reasoning(step_line(event), frames)
            case TextReplaced(text):
                self._add_text(missing_text(before, text), frames)
            case FileProduced():
                self._add_text(file_link(event, after_text), frames)
            case TurnFinished():
                if not self._answering:
                    self._open_text(frames)
                self._end(status_of(self.answer), ids, frames)
            case TurnFailed(error):
                self._fail(error, ids, frames)
            case _:
                self._encode_call(event, frames)

    def _encode_call(self, event: Event, frames: list[bytes]) -> None:
        match event:
            case ToolCallStarted():
                self._start_call(event, frames)
            case ToolCallFinished():
                self._close_call("completed", frames)
            case RefusalDelta(text):
                self._add_refusal(text, frames)
            case _:
                pass  # citations follow at the end

    def _end(self, status: Status, ids: TurnIds, frames: list[bytes]) -> None:
        self._close_items(status, frames)
        self.response = response_object(
            self._initial,
            self.answer,
            ids,
            status=status,
            completed_at=self._now(),
            output=self._output,
            prompt_characters=self.prompt_characters,
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
