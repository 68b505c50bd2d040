"""Earlier messages as a transcript, for a Dify conversation that begins in the middle of a client's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import json

from openai_dify_proxy.translate.turn_request import HistoryMessage

_LABELS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"

_LINE_BEGIN = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"
_ROLE_LINE = re.compile(
    rf"{_LINE_BEGIN}(?=[ \t]*(?:(?:User|Assistant|Tool|System) *:|{HEADING}|{QUESTION}))", re.IGNORECASE
)


def transcript(history: Sequence[HistoryMessage]) -> str:
    """Each message with a role line, oldest first.

    A line of a message that looks like a role line, or like the lines around a transcript, is escaped by a backslash,
    so that nobody can put words into another's mouth; a model may take more for the end of a line than LF.
    """
    return "\n\n".join(f"{_LABELS[message.role]}: {_escape(message.text)}" for message in history)


def _escape(text: str) -> str:
    return _ROLE_LINE.sub(r"\\", text)


def transcript_json(history: Sequence[HistoryMessage]) -> str:
    """The same as a JSON array of ``{"role", "content"}``, for an input named ``messages``."""
    return json.encode([{"role": message.role, "content": message.text} for message in history]).decode()


def with_transcript(history: Sequence[HistoryMessage], question: str) -> str:
    """A question that carries its history along."""
    return f"{HEADING}\n\n{transcript(history)}\n\n{QUESTION}\n\n{question}" if history else question
