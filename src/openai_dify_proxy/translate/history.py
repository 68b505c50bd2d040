"""Fingerprints of histories, by which a conversation is recognised.

A fingerprint is a chain. Its first link names the scope, and each further link folds in one more thing that reached
Dify: h = HMAC(secret, h_before ‖ role ‖ length ‖ content). So two histories have the same fingerprint only if they
agree in scope and in every part, and nobody who lacks the secret can make or recognise one.

Only what clients change in passing is removed: line ends, white space around a text, and messages without words.
(What an assistant thought aloud has been taken off before.) Indentation counts.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from openai_dify_proxy.translate.turn_request import HistoryMessage


def extend_fingerprint(secret: bytes, parts: Iterable[tuple[str, str]], link: bytes = b"") -> bytes:
    """Return the fingerprint ``link`` extended by ``parts``, which are pairs of a role and a content."""
    for role, content in parts:
        data = content.encode("utf-8", "surrogatepass")
        link = hmac.digest(secret, b"%b%b\0%d\0%b" % (link, role.encode(), len(data), data), "sha256")
    return link


def message_parts(messages: Sequence[HistoryMessage]) -> list[tuple[str, str]]:
    """Messages as parts of a fingerprint, without what clients change in passing."""
    parts = ((message.role, normalize(message.text)) for message in messages)
    return [(role, text) for role, text in parts if text]


def reply_parts(messages: Sequence[HistoryMessage]) -> list[tuple[str, str]]:
    """The assistant's messages alone, for clients that rewrite the user's."""
    return message_parts([message for message in messages if message.role == "assistant"])


def normalize(text: str) -> str:
    """Remove what clients change in passing: the kind of line ends, and outer white space."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def last_question(history: Sequence[HistoryMessage]) -> str | None:
    """The text of the user's last message, if any has words."""
    questions = (message.text.strip() for message in reversed(history) if message.role == "user")
    return next(filter(None, questions), None)
