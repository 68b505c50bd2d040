"""Folds a turn's events into the complete answer for a client that does not stream."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import field

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    FinishReason,
    HumanInput,
    ReasoningDelta,
    RefusalDelta,
    Repairs,
    StepChanged,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    Usage,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall


class Answer(Entity):
    """The answer so far: ``add`` events and read the attributes.

    ``texts`` are the pieces of the text; to append one is the same as to add a ``TextDelta``, and faster.
    ``finish_reason`` and ``error`` are None until the turn finished or failed. ``calling`` means that the last call has
    not finished, ``replaced`` that a moderation replaced earlier text. ``human_input`` is the form of a paused run.
    ``suggested_questions`` are no events: the caller sets them before the last one.
    """

    texts: list[str] = field(default_factory=list)
    calling: bool = False
    citations: tuple[Citation, ...] = ()
    files: list[FileProduced] = field(default_factory=list)
    replaced: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    repairs: Repairs | None = None
    human_input: HumanInput | None = None
    suggested_questions: list[str] | None = None
    error: ProxyError | None = None
    _reasoning: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _calls: list[tuple[ToolCallStarted, list[str]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def has_text(self) -> bool:
        return any(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refusal(self) -> str | None:
        """The text of a moderation that replaced an answer with a schema."""
        return "".join(self._refusal) or None

    @property
    def calls(self) -> list[ToolCall]:
        """The tool calls, with their arguments so far."""
        if not self._calls:
            return []
        return [ToolCall(call.id, call.name, "".join(parts), call.custom) for call, parts in self._calls]

    @property
    def reply(self) -> HistoryMessage:
        """The answer as the assistant's message of the history."""
        return self.reply_with(self.text)

    def reply_with(self, text: str) -> HistoryMessage:
        """Return the answer as the assistant's message, with the text that a stream has sent; or with the refusal."""
        return HistoryMessage("assistant", text or self.refusal or "", tuple(self.calls) if self._calls else ())

    @property
    def cited_urls(self) -> list[tuple[str, str]]:
        """The URLs and titles of the citations that have a URL."""
        return [(citation.url, citation.title) for citation in self.citations if citation.url is not None]

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if type(event) is TextDelta:
                self.texts.append(event.text)
            else:
                self.add_one(event)

    def add_arguments(self, delta: ToolCallDelta) -> None:
        """Add a ``ToolCallDelta``; faster than ``add_one``."""
        self._calls[delta.index][1].append(delta.text)

    def add_one(self, event: Event) -> None:
        match event:
            case TurnFinished():
                self._finish(event)
            case TextDelta(text):
                self.texts.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case TextReplaced(text, moderated):
                self.texts = [text]
                self.replaced = self.replaced or moderated
            case FileProduced():
                self.files.append(event)
                self._add_link(event)
            case Citations(items):
                self.citations = items
            case StepChanged():
                self._reasoning.append(step_line(event))
            case TurnFailed(error):
                self.error = error
            case _:
                self._add_call(event)

    def _add_call(self, event: ToolCallStarted | ToolCallDelta | ToolCallFinished | RefusalDelta) -> None:
        match event:
            case ToolCallStarted():
                self._calls.append((event, []))
                self.calling = True
            case ToolCallDelta():
                self.add_arguments(event)
            case RefusalDelta(text):
                self._refusal.append(text)
            case _:
                self.calling = False

    def _finish(self, event: TurnFinished) -> None:
        if event.answer is not None:
            self.texts = [event.answer]
            for file in self.files:
                self._add_link(file)
        self.finish_reason = event.reason
        self.usage = event.usage
        self.repairs = event.repairs
        self.human_input = event.human_input

    def _add_link(self, file: FileProduced) -> None:
        if link := file_link(file, self.has_text):
            self.texts.append(link)


def file_link(file: FileProduced, after_text: bool) -> str:
    """Return a Markdown link to a file, or nothing if the answer's text links to it already."""
    if file.linked:
        return ""
    name = (file.filename or file.type).replace("[", "").replace("]", "")
    mark = "!" if file.type == "image" else ""
    link = f"{mark}[{name}]({file.url})"
    return f"\n\n{link}" if after_text else link


_MARKS = {"started": "→", "succeeded": "✓", "failed": "✗", "retrying": "↻"}


def step_line(step: StepChanged) -> str:
    """Return a line of reasoning for a step's new state: a mark and the title."""
    return f"{_MARKS[step.state]} {step.title}\n"
