"""The messages of ``/v1/conversations``.

Source: the OpenAI API reference, and the types of the official Python SDK.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.json import Decoder

from openai_dify_proxy.wire.openai.responses import InputItems


class ConversationRequest(Struct, kw_only=True):
    """The body that creates or updates a conversation; ``items`` has the format of a response's ``input``."""

    items: InputItems | None = None
    metadata: dict[str, str] | None = None


class Conversation(Struct, kw_only=True):
    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str] = field(default_factory=dict)


class ConversationDeleted(Struct, kw_only=True):
    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


class ItemText(Struct, kw_only=True):
    """The text of a user's message."""

    type: Literal["input_text"] = "input_text"
    text: str


class ItemAnswer(Struct, kw_only=True):
    """The text of an assistant's message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


class MessageItem(Struct, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    role: str
    content: list[Any]


class CallItem(Struct, kw_only=True):
    """A call of a function (``arguments``) or of a custom tool (``input``)."""

    id: str
    type: Literal["function_call", "custom_tool_call"]
    status: Literal["completed"] = "completed"
    arguments: str | UnsetType = UNSET
    call_id: str
    input: str | UnsetType = UNSET
    name: str


class ResultItem(Struct, kw_only=True):
    """The result of a call."""

    id: str
    type: Literal["function_call_output", "custom_tool_call_output"]
    status: Literal["completed"] = "completed"
    call_id: str
    output: str


HistoryItem = MessageItem | CallItem | ResultItem


class ItemList(Struct, kw_only=True):
    """A page of items; the ids are empty if it has none, since OpenAI's schema requires strings."""

    object: Literal["list"] = "list"
    data: list[Any]
    first_id: str
    last_id: str
    has_more: bool


CONVERSATION_REQUEST = Decoder(ConversationRequest)
