"""One turn as a client asked for it, in the terms that every OpenAI endpoint shares."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

CONTINUE = "Continue."
"""The question that stands for a request whose last message is the assistant's."""


class HistoryMessage(Struct, frozen=True):
    """A message of the history that has text; ``role`` is user, assistant, tool or system."""

    role: str
    text: str


class TurnMessages(Struct, frozen=True):
    """A request's messages taken apart.

    ``question`` is made of the messages ``asked``, which are the new ones; ``history`` holds those before them, without
    the system messages, whose text is ``system``.
    """

    question: str
    asked: tuple[HistoryMessage, ...]
    system: str = ""
    history: tuple[HistoryMessage, ...] = ()


class RequestIdentity(Struct, frozen=True):
    """Which conversation and whose, as headers and the client's key say; they win over the body.

    ``chat_id`` is the client's own name for the chat.
    """

    conversation_id: str | None = None
    end_user: str | None = None
    chat_id: str | None = None


class StoredHistory(Struct, frozen=True):
    """The stored response or conversation ``name`` that a turn continues.

    ``link`` is the fingerprint of its history within ``scope``, ``asked`` a question of that history. A conversation
    adds its ``system`` text, and ``conversation_id`` if the turn can be put into its conversation in Dify.
    """

    name: str
    scope: bytes = b""
    link: bytes = b""
    asked: str | None = None
    system: str = ""
    conversation_id: str | None = None


SideCallKind: TypeAlias = Literal[
    "title",
    "tags",
    "follow_ups",
    "queries",
    "image_prompt",
    "emoji",
    "autocomplete",
    "tool_choice",
    "memory",
    "summary",
    "merge",
]


class SideCall(Struct, frozen=True):
    """A request that the chat client ``client`` makes beside the conversation.

    ``nothing`` is the answer that makes the client behave as if it had not asked. It is None if no answer does: a
    client that loses a summary loses its conversation.
    """

    client: str
    kind: SideCallKind
    nothing: str | None


class TurnRequest(Struct, frozen=True):
    """One turn as asked for, complete but for the app that answers it.

    ``question``, ``asked``, ``system`` and ``history`` are those of ``TurnMessages``, ``chat_id`` that of
    ``RequestIdentity``. ``stored_history`` stands for a history that is stored here and not in the request. A
    ``stateless`` turn, such as a side call, neither continues a conversation nor can be continued.
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
    side_call: SideCall | None = None
    stateless: bool = False
