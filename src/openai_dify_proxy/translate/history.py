"""Fingerprints of histories, which identify a conversation.

A fingerprint is a chain of keyed hashes. The first link covers the scope, and each further link adds a part that
reached Dify: h = HMAC(secret, h_before ‖ role ‖ length ‖ content). So two histories have the same fingerprint only if
they agree in scope and in every part, and no one can compute one without the secret.

Differences that clients introduce are ignored: line ends, white space around a text, and messages without text.
Reasoning in an assistant's message has already been removed. Indentation counts.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from openai_dify_proxy.translate.turn_request import HistoryMessage


def extend_fingerprint(secret: bytes, parts: Iterable[tuple[str, str]], link: bytes = b"") -> bytes:
    """Return the fingerprint ``link`` extended by ``parts``, pairs of a role and a content."""
    for role, content in parts:
        data = content.encode("utf-8", "surrogatepass")
        link = hmac.digest(secret, b"%b%b\0%d\0%b" % (link, role.encode(), len(data), data), "sha256")
    return link


def message_parts(messages: Sequence[HistoryMessage]) -> list[tuple[str, str]]:
    """Return normalized messages as parts of a fingerprint."""
    parts = ((message.role, normalize(message.text)) for message in messages)
    return [(role, text) for role, text in parts if text]


def reply_parts(messages: Sequence[HistoryMessage]) -> list[tuple[str, str]]:
    """Return only the assistant's messages, for clients that rewrite the user's."""
    return message_parts([message for message in messages if message.role == "assistant"])


def normalize(text: str) -> str:
    """Normalize line ends and remove outer white space, which clients change."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def last_question(history: Sequence[HistoryMessage]) -> str | None:
    """Return the last user message that has text, or None."""
    questions = (message.text.strip() for message in reversed(history) if message.role == "user")
    return next(filter(None, questions), None)
