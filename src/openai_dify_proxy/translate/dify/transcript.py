"""Writes earlier messages as a transcript, for a new Dify conversation that continues a client's chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import json

from openai_dify_proxy.translate.role_lines import HEADING, QUESTION, ForgeableLines
from openai_dify_proxy.translate.turn_request import HistoryMessage

_LABELS = {"user": "\n\nUser: ", "assistant": "\n\nAssistant: ", "tool": "\n\nTool: ", "system": "\n\nSystem: "}

_BATCH = 1 << 16
"""Characters of messages that are searched and joined at once: few calls, in the processor's cache."""

TEMPLATE = f"{HEADING}\n\n{{history}}\n\n{QUESTION}\n\n{{question}}"


class Transcript:
    """A transcript writer. ``template`` holds ``{history}`` and then ``{question}``, each once."""

    def __init__(self, template: str = TEMPLATE) -> None:
        self._before, _, rest = template.partition("{history}")
        self._between, _, self._after = rest.partition("{question}")
        frame = f"{self._before}\n{self._between}\n{self._after}"
        self._own_lines = ForgeableLines(*(line.strip() for line in frame.splitlines() if line.strip()))

    def lines(self, history: Iterable[HistoryMessage]) -> Iterator[str]:
        """Yield the messages with role labels, oldest first, in parts of a text."""
        parts = self._messages(history)
        yield next(parts, "").removeprefix("\n\n")
        yield from parts

    def _messages(self, history: Iterable[HistoryMessage]) -> Iterator[str]:
        """Yield the messages in parts, each message with an empty line before it."""
        lines = self._own_lines
        for batch in _batches(history):
            if len(batch) == 1:
                yield _LABELS[batch[0].role]
                yield from lines.escape_parts(batch[0].text)
                continue
            texts = [message.text for message in batch]
            if lines.occur_in("\n".join(texts)):
                texts = [lines.escape(text) for text in texts]
            labels = [_LABELS[message.role] for message in batch]
            yield "".join([part for labelled in zip(labels, texts, strict=True) for part in labelled])

    def as_json(self, history: Sequence[HistoryMessage]) -> str:
        """Return the messages as a JSON array of ``{"role", "content"}``, for an input named ``messages``."""
        return json.encode([{"role": message.role, "content": message.text} for message in history]).decode()

    def carry(self, history: Sequence[HistoryMessage], question: str) -> Iterator[str]:
        """Yield the question with its history before it, in parts of a text."""
        if not history:
            yield question
            return
        yield self._before
        yield from self.lines(history)
        yield self._between
        yield question
        yield self._after


def _batches(history: Iterable[HistoryMessage]) -> Iterator[list[HistoryMessage]]:
    """Yield the messages in batches of at most ``_BATCH`` characters, a longer message alone."""
    batch: list[HistoryMessage] = []
    size = 0
    for message in history:
        size += len(message.text)
        if batch and size > _BATCH:
            yield batch
            batch = []
            size = len(message.text)
        batch.append(message)
    if batch:
        yield batch


PLAIN = Transcript()
