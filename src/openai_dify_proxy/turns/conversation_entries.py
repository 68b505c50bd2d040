"""The entries of conversations in the state."""

from __future__ import annotations

from msgspec import Struct, msgpack


class ConversationEntry(Struct, frozen=True, array_like=True):
    """The entry of a history: Dify's conversation, the start of its last turn (seconds since the epoch), and digests of
    the system message and of the instructions that Dify has.

    ``turns`` counts the turns since the model got the instructions or a reminder.
    """

    conversation_id: str
    at: float
    system: bytes
    instructions: bytes = b""
    turns: int = 0


class ConversationRecord(Struct, frozen=True, array_like=True):
    """The record of a Dify conversation, by its id within a scope; ``head`` is the key of its entry."""

    head: str
    at: float
    system: bytes
    instructions: bytes = b""
    turns: int = 0


encode_entry = msgpack.Encoder().encode
read_entry = msgpack.Decoder(ConversationEntry).decode
read_record = msgpack.Decoder(ConversationRecord).decode
