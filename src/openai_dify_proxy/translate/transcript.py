"""Earlier messages as a transcript, for a Dify conversation that begins in the middle of a client's."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import json

from openai_dify_proxy.translate.role_lines import HEADING, QUESTION, escape_role_lines
from openai_dify_proxy.translate.turn_request import HistoryMessage

_LABELS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


def transcript(history: Sequence[HistoryMessage]) -> str:
    """Each message with a role line, oldest first."""
    return "\n\n".join(f"{_LABELS[message.role]}: {escape_role_lines(message.text)}" for message in history)


def transcript_json(history: Sequence[HistoryMessage]) -> str:
    """The same as a JSON array of ``{"role", "content"}``, for an input named ``messages``."""
    return json.encode([{"role": message.role, "content": message.text} for message in history]).decode()


def with_transcript(history: Sequence[HistoryMessage], question: str) -> str:
    """A question that carries its history along."""
    return f"{HEADING}\n\n{transcript(history)}\n\n{QUESTION}\n\n{question}" if history else question
