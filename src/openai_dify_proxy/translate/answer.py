"""Folds a turn's events into the complete answer for a client that does not stream."""

from __future__ import annotations

from collections.abc import Iterable

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    FinishReason,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFinished,
    Usage,
)


class Answer:
    """The answer so far: ``add`` events and read the attributes.

    ``finish_reason`` and ``error`` are None until the turn finished or failed. ``replaced`` means that a moderation
    replaced earlier text.
    """

    __slots__ = ("_reasoning", "_text", "citations", "error", "files", "finish_reason", "replaced", "usage")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self.citations: tuple[Citation, ...] = ()
        self.files: list[FileProduced] = []
        self.replaced = False
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.error: ProxyError | None = None

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def has_text(self) -> bool:
        return any(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def cited_urls(self) -> list[tuple[str, str]]:
        """The URLs and titles of the citations that have a URL."""
        return [(citation.url, citation.title) for citation in self.citations if citation.url is not None]

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self.add_one(event)

    def add_text(self, text: str) -> None:
        """Add a ``TextDelta``; faster than ``add_one``."""
        self._text.append(text)

    def add_one(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self.add_text(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case TextReplaced(text, moderated):
                self._text = [text]
                self.replaced = self.replaced or moderated
            case FileProduced():
                self.files.append(event)
                self._add_link(event)
            case Citations(items):
                self.citations = items
            case StepChanged():
                self._reasoning.append(step_line(event))
            case TurnFinished(reason, usage, answer):
                if answer is not None:
                    self._text = [answer]
                    for file in self.files:
                        self._add_link(file)
                self.finish_reason = reason
                self.usage = usage
            case _:
                self.error = event.error

    def _add_link(self, file: FileProduced) -> None:
        if link := file_link(file, self.has_text):
            self._text.append(link)


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
