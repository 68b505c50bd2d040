"""A Responses request as a turn.

Its ``input`` holds items of many kinds, of which only words reach Dify:

- whatever has a role is a message, read as a chat's; ``instructions`` come before all other system texts;
- ``function_call_output`` and ``custom_tool_call_output`` are a tool's messages;
- ``item_reference`` stands for an item that the client got from us: a message is looked up in ``replies``, reasoning
  is passed over, and one that is not known is refused, since an answer without it would be another answer;
- all else (calls, reasoning, compactions, and kinds that do not exist yet) holds no words for Dify and is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw, ValidationError

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
    refuse_unhonourable,
    split_messages,
)
from openai_dify_proxy.translate.openai.responses_answers import response_of_message
from openai_dify_proxy.translate.turn_request import HistoryMessage, RequestIdentity, TurnMessages, TurnRequest
from openai_dify_proxy.wire.openai.chat import ContentPart
from openai_dify_proxy.wire.openai.responses import ITEM_TEXT, ChatOrInputRequest, InputItem, ResponsesRequest
from openai_dify_proxy.wire.reading import read_misfit

TOOL_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})


def read_responses_messages(request: ResponsesRequest, replies: Mapping[str, str] | None = None) -> TurnMessages:
    """Return the messages of a Responses request taken apart. Raises InvalidRequest.

    ``replies`` holds the texts of earlier responses by their ids: those that ``referenced_responses`` names.
    """
    refuse_unhonourable(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    if request.background and request.store is False:
        raise InvalidRequest(
            "A response that runs in the background must be stored, or nobody could fetch it: leave store out.",
            param="background",
        )
    if request.previous_response_id is not None and request.conversation is not None:
        raise InvalidRequest(
            "Send either previous_response_id or conversation: each names what the response continues.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    instructions = _instructions(request.instructions)
    if request.input is None and request.messages:
        return split_messages([*instructions, *chat_messages(request.messages)], param="messages")
    if not request.input and not instructions:
        raise InvalidRequest("The request lacks the field 'input'.", param="input", code="missing_required_parameter")
    return split_messages([*instructions, *messages_of_input(request.input, replies)], param="input")


def read_chat_or_input_request(request: ChatOrInputRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request, with ``messages`` or ``input``, as a turn. Raises InvalidRequest."""
    if request.messages:
        return read_chat_request(request, identity)
    if request.input is None:
        raise InvalidRequest(
            "messages must hold at least one message.", param="messages", code="missing_required_parameter"
        )
    refuse_unhonourable(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    messages = [*_instructions(request.instructions), *messages_of_input(request.input)]
    return make_turn(request, split_messages(messages, param="input"), identity)


def messages_of_input(
    given: str | Sequence[InputItem] | None, replies: Mapping[str, str] | None = None
) -> list[HistoryMessage]:
    """The messages in ``input``, oldest first. Raises InvalidRequest with the item's path."""
    if given is None or isinstance(given, str):
        return [HistoryMessage("user", given)] if given else []
    read = (_message(item, f"input[{index}]", replies or {}) for index, item in enumerate(given))
    return [message for message in read if message is not None]


def referenced_responses(request: ResponsesRequest) -> list[str]:
    """The ids of responses whose text ``input`` refers to instead of repeating it."""
    items = request.input if isinstance(request.input, list) else []
    found = [response_of_message(item.id) for item in items if _is_reference(item) and item.id is not None]
    return list(dict.fromkeys(name for name in found if name is not None))


def _instructions(text: str | None) -> list[HistoryMessage]:
    return [HistoryMessage("system", text)] if text else []


def _message(item: InputItem, param: str, replies: Mapping[str, str]) -> HistoryMessage | None:
    if item.role is not None:
        role = ROLES.get(item.role)
        if role is None:
            raise InvalidRequest(f"There is no role '{item.role}' in messages.", param=f"{param}.role")
        return _worded(role, item.content, f"{param}.content")
    if item.type in TOOL_OUTPUTS:
        return _worded("tool", item.output, f"{param}.output")
    if _is_reference(item):
        return _referenced(item.id or "", f"{param}.id", replies)
    if item.type in (None, "message"):
        raise InvalidRequest(f"{param} needs a role.", param=f"{param}.role", code="missing_required_parameter")
    return None


def _is_reference(item: InputItem) -> bool:
    """``type`` may be absent, as with messages."""
    return item.role is None and (item.type == "item_reference" or (item.type is None and item.id is not None))


def _referenced(name: str, param: str, replies: Mapping[str, str]) -> HistoryMessage | None:
    if name.startswith("rs_"):
        return None
    response = response_of_message(name)
    if response is None or response not in replies:
        raise InvalidRequest(
            "The item is not known here, or no longer: send the item itself in place of a reference to it.", param=param
        )
    return HistoryMessage("assistant", replies[response])


def _worded(role: str, raw: Raw, param: str) -> HistoryMessage:
    try:
        content: str | list[ContentPart] | None = ITEM_TEXT.decode(raw)
    except ValidationError as exc:
        misfit = read_misfit(exc)
        at = param + misfit.path
        raise InvalidRequest(f"{misfit.reason} in {at}.", param=at) from None
    return HistoryMessage(role, content_text(role, content, param))
