"""The entries of conversations in the state."""

from __future__ import annotations

from msgspec import Struct


class ConversationEntry(Struct, frozen=True, array_like=True):
    """The entry of a history: Dify's conversation, the start of its last turn (seconds since the epoch), and the digest
    of the system message that Dify has."""

    conversation_id: str
    at: float
    system: bytes


class ConversationRecord(Struct, frozen=True, array_like=True):
    """The record of a Dify conversation, by its id within a scope; ``head`` is the key of its entry."""

    head: str
    at: float
    system: bytes
