"""Read Responses requests as turns.

``input`` holds items of many types:

- an item with a role is a message, read as in a chat; ``instructions`` precede all other system messages;
- ``function_call`` and ``custom_tool_call`` are calls of the assistant's message before them, which may have no text;
- ``function_call_output`` and ``custom_tool_call_output`` are the results of calls;
- ``item_reference`` names an item that the proxy sent earlier: a message or a call is looked up in ``replies``,
  reasoning is skipped, and an unknown item is rejected, since the answer depends on it;
- all other items (reasoning, calls of hosted tools, compactions and unknown types) hold nothing for Dify and are
  skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec import Raw, json, structs

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.chat_request import (
    ROLES,
    UNNAMED,
    chat_messages,
    continuing,
    make_turn,
    read_chat_request,
    read_content,
    reject_several_answers,
    split_messages,
)
from openai_dify_proxy.translate.openai.conversation_items import whole_number
from openai_dify_proxy.translate.openai.file_parts import FileReader
from openai_dify_proxy.translate.openai.parameter_errors import (
    invalid_value,
    missing_parameter,
    quotable,
    unreadable_request,
)
from openai_dify_proxy.translate.openai.responses_answers import response_of_item
from openai_dify_proxy.translate.openai.sent_tools import qualified_name
from openai_dify_proxy.translate.openai.tool_request import read_chat_output
from openai_dify_proxy.translate.turn_request import (
    HistoryMessage,
    RequestIdentity,
    SentFile,
    ToolCall,
    TurnMessages,
    TurnRequest,
)
from openai_dify_proxy.wire.openai.responses import (
    ITEM_ARGUMENTS,
    ITEM_TEXT,
    ChatOrInputRequest,
    InputItem,
    ResponsesRequest,
)
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_REFERENCES = 1000
"""Responses that the ``item_reference`` items of a request may belong to."""

MAX_REFERENCED_TEXT = 8 * 1024 * 1024
"""Characters that the referenced items of a request, or the earlier messages that it continues, may have in all."""

MAX_STORED_BODY = 16 * 1024 * 1024
"""Bytes of a request whose response is stored."""

CALLS = frozenset({"function_call", "custom_tool_call"})
TOOL_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
CONVERSATION_PREFIX = "conv"

_T = TypeVar("_T")

Replies = Mapping[str, HistoryMessage]
"""The assistant's messages of earlier responses, by the id of the response."""


def read_responses_messages(request: ResponsesRequest, replies: Replies | None = None) -> TurnMessages:
    """Return the messages of a Responses request, split into system prompt, history and question.

    ``replies`` are the responses of ``referenced_responses``. Raises InvalidRequest.
    """
    if request.n is not None:
        reject_several_answers(request.n)
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
    if request.conversation_name is not None and not request.conversation_name.startswith(CONVERSATION_PREFIX):
        raise InvalidRequest(
            f"Invalid 'conversation': '{quotable(request.conversation_name)}'. Expected an ID that begins with "
            f"'{CONVERSATION_PREFIX}'.",
            param="conversation",
            code="invalid_value",
        )
    instructions = _instructions(request.instructions)
    files = FileReader()
    if request.input is None and request.messages:
        messages = [*instructions, *chat_messages(request.messages, files)]
        return split_messages(messages, param="messages", files=files)
    if not request.input and (request.previous_response_id is not None or request.conversation is not None):
        return continuing(request.instructions or "", param="input")
    if not request.input and not instructions:
        raise missing_parameter("input")
    messages = [*instructions, *messages_of_input(request.input, replies, files=files)]
    return split_messages(messages, param="input", files=files)


def read_chat_or_input_request(request: ChatOrInputRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request, with ``messages`` or ``input``, as a turn. Raises InvalidRequest."""
    if request.messages or request.input is None:
        return read_chat_request(request, identity)
    if request.n is not None:
        reject_several_answers(request.n)
    files = FileReader()
    sent = [*_instructions(request.instructions), *messages_of_input(request.input, files=files)]
    messages = split_messages(sent, param="input", files=files)
    return make_turn(request, messages, identity, requested=read_chat_output(request))


def messages_of_input(
    items: str | Sequence[InputItem] | None,
    replies: Replies | None = None,
    *,
    field: str = "input",
    files: FileReader | None = None,
) -> list[HistoryMessage]:
    """Return the messages in ``field``, oldest first, and read their files with ``files``.

    Raises InvalidRequest with the item's path.
    """
    if items is None or isinstance(items, str):
        return [HistoryMessage("user", items)] if items else []
    replies = replies or {}
    files = files or FileReader()
    messages: list[HistoryMessage] = []
    calls: dict[int, list[ToolCall]] = {}
    referenced = 0
    for index, item in enumerate(items):
        found = _message_or_call(item, f"{field}[{index}]", replies, files)
        if isinstance(found, ToolCall):
            if not messages or messages[-1].role != "assistant":
                messages.append(HistoryMessage("assistant", ""))
            calls.setdefault(len(messages) - 1, []).append(found)
        elif found is not None:
            last = len(messages) - 1
            if found.role == "assistant" and last in calls and not messages[last].text:
                messages[last] = found  # a text behind the calls of the same answer
            else:
                messages.append(found)
            referenced += len(found.text) if _is_reference(item) else 0
            check_referenced_text(referenced)
    for place, made in calls.items():
        messages[place] = structs.replace(messages[place], calls=tuple(made))
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


def _message_or_call(
    item: InputItem, param: str, replies: Replies, files: FileReader
) -> HistoryMessage | ToolCall | None:
    if item.role is not None:
        role = ROLES.get(item.role)
        if role is None:
            raise invalid_value(f"{param}.role", item.role, ROLES)
        text, sent = _item_content(role, item.content, f"{param}.content", files)
        return HistoryMessage(role, text, files=sent)
    if item.type in CALLS:
        return _call(item, param)
    if item.type in TOOL_OUTPUTS:
        if item.call_id is None:
            raise missing_parameter(f"{param}.call_id")
        text, sent = _item_content("tool", item.output, f"{param}.output", files)
        return HistoryMessage("tool", text, call_id=item.call_id, files=sent)
    if _is_reference(item):
        return _referenced(item.id, f"{param}.id", replies)
    if item.type in (None, "message"):
        raise missing_parameter(f"{param}.role")
    return None


def _call(item: InputItem, param: str) -> ToolCall:
    if item.call_id is None:
        raise missing_parameter(f"{param}.call_id")
    if item.name is None:
        raise missing_parameter(f"{param}.name")
    custom = item.type == "custom_tool_call"
    raw, param = (item.input, f"{param}.input") if custom else (item.arguments, f"{param}.arguments")
    text = _decoded(ITEM_ARGUMENTS, raw, param) or ""
    arguments = text if isinstance(text, str) else json.encode(text).decode()
    return ToolCall(item.call_id, qualified_name(item.namespace, item.name), arguments, custom)


def _is_reference(item: InputItem) -> bool:
    """Return whether an item is a reference. ``type`` is optional, as it is in messages."""
    return item.role is None and (item.type == "item_reference" or (item.type is None and item.id is not None))


def _referenced(item_id: str | None, param: str, replies: Replies) -> HistoryMessage | ToolCall | None:
    """Return the message or the call that a reference names. Raises InvalidRequest for an unknown one."""
    if item_id is None:
        raise missing_parameter(param)
    if item_id.startswith("rs_"):
        return None
    reply = replies.get(response_of_item(item_id) or "")
    if reply is not None and item_id.startswith("msg_"):
        return HistoryMessage("assistant", reply.text)
    if reply is not None:
        number = whole_number(item_id.rpartition("_")[2])
        if number is not None and number < len(reply.calls):
            return reply.calls[number]
    raise InvalidRequest(
        f"Item with id '{quotable(item_id)}' not found. Send the item itself instead of a reference.", param=param
    )


def _item_content(role: str, raw: Raw, param: str, files: FileReader) -> tuple[str, tuple[SentFile, ...]]:
    return read_content(role, _decoded(ITEM_TEXT, raw, param), param, files)


def _decoded(decoder: json.Decoder[_T], raw: Raw, param: str) -> _T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as exc:
        raise unreadable_request(exc, raw, decoder.type, at=param) from None
