"""One turn as a client asked for it, in the terms that every OpenAI endpoint shares."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

CONTINUE = "Continue."
"""The question that stands for a request whose last message is the assistant's."""


class HistoryMessage(Struct, frozen=True):
    """A message of the history that has text; ``role`` is user, assistant, tool or system."""

    role: str
    text: str


class StoredHistory(Struct, frozen=True):
    """The stored response or conversation ``name`` that a turn continues.

    ``link`` is the fingerprint of its history within ``scope``, ``asked`` a question of that history.
    """

    name: str
    scope: bytes = b""
    link: bytes = b""
    asked: str | None = None


class TurnRequest(Struct, frozen=True):
    """One turn as asked for, before it is known which app answers it.

    ``question`` is made of the messages ``asked``, which are the new ones, and ``history`` holds all that was said
    before them. ``chat_id`` is the client's own name for the chat. ``stored_history`` stands for a history that is
    stored here and not in the request. A ``stateless`` turn neither continues a conversation nor is ever continued.
    """

    question: str
    system: str = ""
    history: tuple[HistoryMessage, ...] = ()
    inputs: dict[str, Any] = {}
    conversation_id: str | None = None
    end_user: str | None = None
    stop: tuple[str, ...] = ()
    asked: tuple[HistoryMessage, ...] = ()
    chat_id: str | None = None
    stored_history: StoredHistory | None = None
    stateless: bool = False
