"""Encode turn events as the chunks of a chat completion or of a legacy completion.

Frames are exactly ``data: {json}`` and an empty line. Text chunks are the most frequent output of the proxy, so their
bytes before and after the text are encoded once per turn, from the structs that describe a chunk; those of a call's
arguments once per call. An encoder stores the answer so far, to compute the text that a replacement
adds for the client.

OpenAI's first chunk has a null content if a call or a refusal comes first, else an empty string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import UNSET, UnsetType, json

from openai_dify_proxy.events import (
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
)
from openai_dify_proxy.translate.answer import Answer, file_link, step_line
from openai_dify_proxy.translate.openai.chat_answers import (
    AnswerHead,
    extension,
    legacy_reason,
    url_annotations,
    usage_of,
)
from openai_dify_proxy.translate.openai.errors import encode_error_frame
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.openai.chat import (
    ChatCompletionChunk,
    ChunkChoice,
    ChunkDelta,
    CustomCall,
    DifyExtension,
    FunctionCall,
    MessageToolCall,
    TextChoice,
    TextCompletion,
)

NO_IDS = TurnIds()

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"

_encode_text = json.Encoder().encode


class StreamEncoder(Protocol):
    """Encodes the events of a turn as bytes of a stream; each result holds complete frames."""

    answer: Answer

    @property
    def reply(self) -> HistoryMessage:
        """The message that the client has received; a stream cannot retract any of it."""

    def open(self, ids: TurnIds = NO_IDS) -> bytes:
        """Return the frames before the first text, with Dify's ``ids`` as far as they are known.

        Return nothing when called again, unless new ids are to be sent.
        """

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        """Return the frames for ``events``, and after the turn's last event the end of the stream."""

    def heartbeat(self) -> bytes:
        """Return a frame without content, for clients and balancers that close silent connections."""


class ChatStreamEncoder:
    """Chunks of ``POST /v1/chat/completions``.

    ``include_usage`` is ``stream_options.include_usage``: it adds a chunk with the usage and without choices, and a
    null usage to all other chunks. The first chunk has Dify's ids, for clients that cancel; if they are not known yet,
    a chunk of their own follows as soon as they are.
    """

    __slots__ = (
        "_after",
        "_before",
        "_calls",
        "_head",
        "_identified",
        "_include_usage",
        "_opened",
        "_reasoning",
        "_sent",
        "answer",
    )

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._opened = False
        self._identified = False  # also opened
        self._reasoning = False
        self._before, self._after = self._chunk(ChunkDelta(content="")).split(b'"content":""')
        self._before += b'"content":'
        self._sent: list[str] = []
        self._calls: list[tuple[bytes, bytes]] = []  # by index: the bytes before and after further arguments
        self.answer = Answer()

    @property
    def reply(self) -> HistoryMessage:
        return self.answer.reply_with("".join(self._sent))

    def open(self, ids: TurnIds = NO_IDS) -> bytes:
        return self._open("", ids)

    def _open(self, content: Literal[""] | None, ids: TurnIds) -> bytes:
        known = ids.task_id is not None
        if self._identified or (self._opened and not known):
            return b""
        delta = ChunkDelta() if self._opened else ChunkDelta(role="assistant", content=content, refusal=None)
        self._opened, self._identified = True, known
        return self._chunk(delta, _ids_only(ids) if known else UNSET)

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        frames: list[bytes] = []
        for event in events:
            if type(event) is TextDelta:
                if not self._identified:
                    frames.append(self._open("", ids))
                self._reasoning = False
                self.answer.texts.append(event.text)
                self._sent.append(event.text)
                frames += (self._before, _encode_text(event.text), self._after)
            elif type(event) is ToolCallDelta:
                self.answer.add_arguments(event)
                if event.index < len(self._calls):
                    before, after = self._calls[event.index]
                    frames += (before, _encode_text(event.text), after)
            else:
                self._encode_other(event, ids, frames)
        return b"".join(frames)

    def heartbeat(self) -> bytes:
        """Return an empty delta, or a comment during reasoning: any other delta ends the reasoning in some clients."""
        return COMMENT if self._reasoning else self.open() + self._chunk(ChunkDelta())

    def _encode_other(self, event: Event, ids: TurnIds, frames: list[bytes]) -> None:
        before = self.answer.text if isinstance(event, TextReplaced) else ""
        after_text = isinstance(event, FileProduced) and self.answer.has_text
        self.answer.add_one(event)
        if isinstance(event, TurnFailed):
            frames.append(encode_error_frame(event.error))
            return
        if not self._identified:
            frames.append(self._open(None if isinstance(event, ToolCallStarted | RefusalDelta) else "", ids))
        match event:
            case ToolCallStarted():
                self._start_call(event, frames)
            case RefusalDelta(text):
                self._reasoning = False
                frames.append(self._chunk(ChunkDelta(refusal=text)))
            case ReasoningDelta(text):
                self._encode_reasoning(text, frames)
            case StepChanged():
                self._encode_reasoning(step_line(event), frames)
            case TextReplaced(text):
                self._text(missing_text(before, text), frames)
            case FileProduced():
                self._text(file_link(event, after_text), frames)
            case TurnFinished(reason):
                self._end(reason, ids, frames)
            case _:
                pass  # citations follow at the end, and the end of a call has no chunk

    def _start_call(self, call: ToolCallStarted, frames: list[bytes]) -> None:
        """Encode the first chunk of a call, and prepare those of its arguments."""
        self._reasoning = False
        if self._head.legacy_functions:
            if call.index == 0:
                frames.append(self._chunk(ChunkDelta(function_call=FunctionCall(call.name, ""))))
                self._add_call(ChunkDelta(function_call=FunctionCall(arguments="")), b'"arguments":')
            return
        if call.custom:
            first = MessageToolCall(index=call.index, id=call.id, type="custom", custom=CustomCall(call.name, ""))
            more, key = MessageToolCall(index=call.index, custom=CustomCall(input="")), b'"input":'
        else:
            first = MessageToolCall(index=call.index, id=call.id, type="function", function=FunctionCall(call.name, ""))
            more, key = MessageToolCall(index=call.index, function=FunctionCall(arguments="")), b'"arguments":'
        frames.append(self._chunk(ChunkDelta(tool_calls=[first])))
        self._add_call(ChunkDelta(tool_calls=[more]), key)

    def _add_call(self, delta: ChunkDelta, key: bytes) -> None:
        before, after = self._chunk(delta).split(key + b'""')
        self._calls.append((before + key, after))

    def _encode_reasoning(self, text: str, frames: list[bytes]) -> None:
        self._reasoning = True
        frames.append(self._chunk(ChunkDelta(reasoning_content=text)))

    def _text(self, text: str, frames: list[bytes]) -> None:
        if text:
            self._sent.append(text)
            frames += (self._before, _encode_text(text), self._after)

    def _end(self, reason: str, ids: TurnIds, frames: list[bytes]) -> None:
        answer, head = self.answer, self._head
        if answer.citations and (annotations := url_annotations(answer, len(answer.text))):
            frames.append(self._chunk(ChunkDelta(annotations=annotations)))
        dify = extension(answer, ids, estimated=self._include_usage and answer.usage is None)
        frames.append(self._chunk(ChunkDelta(), dify, legacy_reason(reason) if head.legacy_functions else reason))
        if self._include_usage:
            usage = usage_of(answer, head.prompt_characters)
            frames.append(
                _frame(ChatCompletionChunk(id=head.id, created=head.created, model=head.model, choices=[], usage=usage))
            )
        frames.append(DONE)

    def _chunk(
        self, delta: ChunkDelta, dify: DifyExtension | UnsetType = UNSET, finish_reason: str | None = None
    ) -> bytes:
        head = self._head
        return _frame(
            ChatCompletionChunk(
                id=head.id,
                created=head.created,
                model=head.model,
                choices=[ChunkChoice(delta=delta, finish_reason=finish_reason)],
                usage=None if self._include_usage else UNSET,
                dify=dify,
            )
        )


class CompletionStreamEncoder:
    """Chunks of the legacy ``POST /v1/completions``: text only, without reasoning and citations."""

    __slots__ = ("_head", "_include_usage", "_sent", "answer")

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._sent: list[str] = []
        self.answer = Answer()

    @property
    def reply(self) -> HistoryMessage:
        return HistoryMessage("assistant", "".join(self._sent))

    def open(self, ids: TurnIds = NO_IDS) -> bytes:
        return b""

    def encode(self, events: Sequence[Event], ids: TurnIds) -> bytes:
        frames: list[bytes] = []
        for event in events:
            before = self.answer.text if isinstance(event, TextReplaced) else ""
            after_text = isinstance(event, FileProduced) and self.answer.has_text
            self.answer.add_one(event)
            match event:
                case TextDelta(text):
                    self._text(text, frames)
                case TextReplaced(text):
                    self._text(missing_text(before, text), frames)
                case FileProduced():
                    self._text(file_link(event, after_text), frames)
                case TurnFinished(reason):
                    frames.append(self._frame([TextChoice(text="", finish_reason=reason)], ids))
                    if self._include_usage:
                        frames.append(self._usage_frame())
                    frames.append(DONE)
                case TurnFailed(error):
                    frames.append(encode_error_frame(error))
                case _:
                    pass
        return b"".join(frames)

    def heartbeat(self) -> bytes:
        return self._frame([TextChoice(text="")], None)

    def _text(self, text: str, frames: list[bytes]) -> None:
        self._sent.append(text)
        frames.append(self._frame([TextChoice(text=text)], None))

    def _usage_frame(self) -> bytes:
        head = self._head
        return _frame(
            TextCompletion(
                id=head.id,
                created=head.created,
                model=head.model,
                choices=[],
                usage=usage_of(self.answer, head.prompt_characters),
            )
        )

    def _frame(self, choices: list[TextChoice], ids: TurnIds | None) -> bytes:
        head = self._head
        estimated = self._include_usage and self.answer.usage is None
        return _frame(
            TextCompletion(
                id=head.id,
                created=head.created,
                model=head.model,
                choices=choices,
                usage=None if self._include_usage else UNSET,
                dify=UNSET if ids is None else extension(self.answer, ids, estimated=estimated),
            )
        )


def _ids_only(ids: TurnIds) -> DifyExtension:
    return DifyExtension(ids.conversation_id, ids.message_id, ids.task_id, ids.workflow_run_id)


def missing_text(sent: str, text: str) -> str:
    """Return the text to send when ``text`` replaces ``sent``: its rest, or all of it as a new paragraph.

    The text that was sent cannot be retracted.
    """
    if text.startswith(sent):
        return text[len(sent) :]
    return f"\n\n{text}" if text else ""


def _frame(chunk: ChatCompletionChunk | TextCompletion) -> bytes:
    return b"data: " + json.encode(chunk) + b"\n\n"
