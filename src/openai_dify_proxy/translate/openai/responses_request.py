"""Read Responses requests as turns.

``input`` holds items of many types, and only their text reaches Dify:

- an item with a role is a message, read as in a chat; ``instructions`` precede all other system messages;
- ``function_call_output`` and ``custom_tool_call_output`` are tool messages;
- ``item_reference`` names an item that the proxy sent earlier: a message is looked up in ``replies``, reasoning is
  skipped, and an unknown item is rejected, since the answer depends on it;
- all other items (calls, reasoning, compactions and unknown types) hold no text for Dify and are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.chat_request import (
    ROLES,
    UNNAMED,
    chat_messages,
    content_text,
    forced_tool,
    forces_tool,
    make_turn,
    read_chat_request,
    reject_several_answers,
    split_messages,
)
from openai_dify_proxy.translate.openai.parameter_errors import (
    invalid_value,
    missing_parameter,
    quotable,
    unreadable_request,
)
from openai_dify_proxy.translate.openai.responses_answers import response_of_item
from openai_dify_proxy.translate.turn_request import HistoryMessage, RequestIdentity, TurnMessages, TurnRequest
from openai_dify_proxy.wire.openai.chat import ContentPart
from openai_dify_proxy.wire.openai.responses import ITEM_TEXT, ChatOrInputRequest, InputItem, ResponsesRequest
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_REFERENCES = 1000
"""Responses that the ``item_reference`` items of a request may belong to."""

MAX_REFERENCED_TEXT = 8 * 1024 * 1024
"""Characters that the referenced items of a request, or the earlier messages that it continues, may have in all."""

MAX_STORED_BODY = 16 * 1024 * 1024
"""Bytes of a request whose response is stored."""

TOOL_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})


def read_responses_messages(request: ResponsesRequest, replies: Mapping[str, str] | None = None) -> TurnMessages:
    """Return the messages of a Responses request, split into system prompt, history and question.

    ``replies`` maps the ids from ``referenced_responses`` to the texts of these responses. Raises InvalidRequest.
    """
    reject_several_answers(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    if request.background and request.store is False:
        raise InvalidRequest(
            "A response with 'background' must be stored. Omit 'store', or set it to true.", param="background"
        )
    if request.previous_response_id is not None and request.conversation is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Send only one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    instructions = _instructions(request.instructions)
    if request.input is None and request.messages:
        return split_messages([*instructions, *chat_messages(request.messages)], param="messages")
    if not request.input and not instructions:
        raise missing_parameter("input")
    return split_messages([*instructions, *messages_of_input(request.input, replies)], param="input")


def read_chat_or_input_request(request: ChatOrInputRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request, with ``messages`` or ``input``, as a turn. Raises InvalidRequest."""
    if request.messages or request.input is None:
        return read_chat_request(request, identity)
    reject_several_answers(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    messages = [*_instructions(request.instructions), *messages_of_input(request.input)]
    return make_turn(request, split_messages(messages, param="input"), identity)


def messages_of_input(
    items: str | Sequence[InputItem] | None, replies: Mapping[str, str] | None = None, *, field: str = "input"
) -> list[HistoryMessage]:
    """Return the messages in ``field``, oldest first. Raises InvalidRequest with the item's path."""
    if items is None or isinstance(items, str):
        return [HistoryMessage("user", items)] if items else []
    replies = replies or {}
    messages = []
    referenced = 0
    for index, item in enumerate(items):
        message = _message(item, f"{field}[{index}]", replies)
        if message is not None:
            messages.append(message)
            referenced += len(message.text) if _is_reference(item) else 0
            check_referenced_text(referenced)
    return messages


def check_storable(request: ResponsesRequest, size: int) -> None:
    """Raise InvalidRequest if the response would be stored, with the input of a body of ``size`` bytes."""
    if request.store is not False and size > MAX_STORED_BODY:
        raise InvalidRequest(
            f"The response to a request of more than {MAX_STORED_BODY} bytes cannot be stored. Set 'store' to false, "
            "or send less input.",
            param="store",
        )


def referenced_responses(request: ResponsesRequest) -> list[str]:
    """Return the ids of the responses that the ``item_reference`` items of ``input`` belong to.

    Raises InvalidRequest for more than ``MAX_REFERENCES``.
    """
    items = request.input if isinstance(request.input, list) else []
    found = [response_of_item(item.id) for item in items if _is_reference(item) and item.id is not None]
    names = list(dict.fromkeys(name for name in found if name is not None))
    if len(names) > MAX_REFERENCES:
        raise InvalidRequest(
            f"'input' references items of more than {MAX_REFERENCES} responses. Send fewer references.", param="input"
        )
    return names


def check_referenced_text(characters: int) -> None:
    """Raise InvalidRequest if the referenced items have too many characters in all."""
    if characters > MAX_REFERENCED_TEXT:
        raise InvalidRequest(
            f"The items that 'input' references have more than {MAX_REFERENCED_TEXT} characters in all. "
            "Send fewer references.",
            param="input",
        )


def _instructions(text: str | None) -> list[HistoryMessage]:
    return [HistoryMessage("system", text)] if text else []


def _message(item: InputItem, param: str, replies: Mapping[str, str]) -> HistoryMessage | None:
    if item.role is not None:
        role = ROLES.get(item.role)
        if role is None:
            raise invalid_value(f"{param}.role", item.role, ROLES)
        return _text_message(role, item.content, f"{param}.content")
    if item.type in TOOL_OUTPUTS:
        return _text_message("tool", item.output, f"{param}.output")
    if _is_reference(item):
        return _referenced_message(item.id, f"{param}.id", replies)
    if item.type in (None, "message"):
        raise missing_parameter(f"{param}.role")
    return None


def _is_reference(item: InputItem) -> bool:
    """Return whether an item is a reference. ``type`` is optional, as it is in messages."""
    return item.role is None and (item.type == "item_reference" or (item.type is None and item.id is not None))


def _referenced_message(item_id: str | None, param: str, replies: Mapping[str, str]) -> HistoryMessage | None:
    if item_id is None:
        raise missing_parameter(param)
    if item_id.startswith("rs_"):
        return None
    response = response_of_item(item_id)
    if response is None or response not in replies:
        raise InvalidRequest(
            f"Item with id '{quotable(item_id)}' not found. Send the item itself instead of a reference.", param=param
        )
    return HistoryMessage("assistant", replies[response])


def _text_message(role: str, raw: Raw, param: str) -> HistoryMessage:
    try:
        content: str | list[ContentPart] | None = ITEM_TEXT.decode(raw)
    except UNREADABLE as exc:
        raise unreadable_request(exc, raw, ITEM_TEXT.type, at=param) from None
    return HistoryMessage(role, content_text(role, content, param))
