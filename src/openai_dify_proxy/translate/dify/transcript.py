"""Writes earlier messages as a transcript, for a new Dify conversation that continues a client's chat."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import json

from openai_dify_proxy.translate.role_lines import HEADING, QUESTION, ForgeableLines, escape_role_lines
from openai_dify_proxy.translate.turn_request import HistoryMessage

_LABELS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "system": "System"}

TEMPLATE = f"{HEADING}\n\n{{history}}\n\n{QUESTION}\n\n{{question}}"


class Transcript:
    """A transcript writer. ``template`` holds ``{history}`` and then ``{question}``, each once."""

    def __init__(self, template: str = TEMPLATE) -> None:
        self._before, _, rest = template.partition("{history}")
        self._between, _, self._after = rest.partition("{question}")
        frame = f"{self._before}\n{self._between}\n{self._after}"
        self._own_lines = ForgeableLines(*(line.strip() for line in frame.splitlines() if line.strip()))

    def lines(self, history: Sequence[HistoryMessage]) -> str:
        """Return the messages with role labels, oldest first."""
        return "\n\n".join(
            f"{_LABELS[message.role]}: {escape_role_lines(message.text, self._own_lines)}" for message in history
        )

    def as_json(self, history: Sequence[HistoryMessage]) -> str:
        """Return the messages as a JSON array of ``{"role", "content"}``, for an input named ``messages``."""
        return json.encode([{"role": message.role, "content": message.text} for message in history]).decode()

    def carry(self, history: Sequence[HistoryMessage], question: str) -> str:
        """Return the question with its history before it."""
        if not history:
            return question
        return f"{self._before}{self.lines(history)}{self._between}{question}{self._after}"


PLAIN = Transcript()
