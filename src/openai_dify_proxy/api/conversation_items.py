"""``/v1/conversations/{id}/items``: the messages of a conversation.

Dify can neither add a message to a conversation nor delete one. So a change copies the messages from Dify to the state,
and the next turn starts a new conversation in Dify with the items as its transcript.
"""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.conversations import (
    admit_reader,
    conversation_response,
    load_conversation,
    locked,
    read_conversation,
    read_items,
)
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.errors import InvalidRequest, NotFound
from openai_dify_proxy.responses.continuation import stored_items
from openai_dify_proxy.responses.response_store import StoredConversation
from openai_dify_proxy.translate.openai.conversation_items import check_items, page
from openai_dify_proxy.translate.openai.parameter_errors import empty_value, missing_parameter, quotable
from openai_dify_proxy.translate.openai.stored_items import StoredItem, item_object, items_of_messages, pending_calls
from openai_dify_proxy.translate.turn_request import ToolCall
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.chat import MAX_ITEMS
from openai_dify_proxy.wire.openai.conversations import ConversationRequest, ItemList


async def list_conversation_items(request: Request) -> Response:
    """List the messages that are stored here or in Dify, newest first by default."""
    services, caller = admit_reader(request)
    name, entry = await load_conversation(services, caller, request)
    items = [item_object(item) for item in await _all_items(services, caller, name, entry)]
    query = request.query_params
    return json_response(page(items, after=query.get("after"), limit=query.get("limit"), order=query.get("order")))


async def create_conversation_items(request: Request) -> Response:
    """Add items at the end of the conversation. The next turn sends them to Dify."""
    services = services_of(request)
    caller = await services.admit(request)
    added = _added_items(await read_conversation(services, request))
    async with locked(services, caller, request):
        name, entry = await load_conversation(services, caller, request)
        items = [*await _complete_items(services, caller, name, entry), *added]
        _check_all(items)
        entry = structs.replace(_detached(entry, items), calls=pending_calls(added, entry.calls))
        await services.stored.conversations.put(caller, name, entry)
    objects = [item_object(item) for item in added]
    ids = [item.id for item in added] or [""]
    return json_response(ItemList(data=objects, first_id=ids[0], last_id=ids[-1], has_more=False))


async def retrieve_conversation_item(request: Request) -> Response:
    services, caller = admit_reader(request)
    name, entry = await load_conversation(services, caller, request)
    item_id = request.path_params["item_id"]
    item = _find(stored_items(name, entry), item_id)
    item = item or _find(await _all_items(services, caller, name, entry), item_id)
    if item is None:
        raise _item_not_found(item_id)
    return json_response(item_object(item))


async def delete_conversation_item(request: Request) -> Response:
    """Delete one item, so that no later turn sees it. Return the conversation, as OpenAI does."""
    services = services_of(request)
    caller = await services.admit(request)
    item_id = request.path_params["item_id"]
    async with locked(services, caller, request):
        name, entry = await load_conversation(services, caller, request)
        items = await _all_items(services, caller, name, entry)
        item = _find(items, item_id)
        if item is None:
            raise _item_not_found(item_id)
        remaining = [other for other in items if other is not item and not other.failed]
        entry = structs.replace(
            _detached(entry, remaining), calls=_calls_without(entry, item, is_last=item is items[-1])
        )
        await services.stored.conversations.put(caller, name, entry)
    return conversation_response(name, entry)


async def _all_items(services: Services, caller: Caller, name: str, entry: StoredConversation) -> list[StoredItem]:
    """Return all items, oldest first. Raises ProxyError if Dify cannot be asked for its messages."""
    items = stored_items(name, entry)
    if (place := entry.place) is not None:
        items += items_of_messages(await services.continuations.messages(caller, place), entry.asked)
    return items


async def _complete_items(services: Services, caller: Caller, name: str, entry: StoredConversation) -> list[StoredItem]:
    return [item for item in await _all_items(services, caller, name, entry) if not item.failed]


def _detached(entry: StoredConversation, items: list[StoredItem]) -> StoredConversation:
    """Return the conversation with ``items``, and without a conversation in Dify that a turn could continue."""
    left = entry.left if entry.place is None else [*entry.left, entry.place]
    return structs.replace(entry, items=items, asked=[], place=None, left=left, failed=False)


def _calls_without(entry: StoredConversation, item: StoredItem, *, is_last: bool) -> list[ToolCall]:
    """Return the pending calls after the deletion of ``item``; an answer that Dify stores includes its calls."""
    if item.calls:
        return [call for call in entry.calls if call.id != item.calls[0].id]
    return [] if is_last and item.role == "assistant" else entry.calls


def _added_items(body: ConversationRequest) -> list[StoredItem]:
    if body.items is None:
        raise missing_parameter("items")
    if not body.items:
        raise empty_value("items", [])
    return read_items(body, token_hex(24))


def _check_all(items: Sequence[StoredItem]) -> None:
    """Raise InvalidRequest if the conversation would have too many items or too much text."""
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(
            f"The conversation would have more than {MAX_ITEMS} items. Create a new one.",
            param="items",
            code="array_above_max_length",
        )
    check_items(items)


def _find(items: Sequence[StoredItem], item_id: str) -> StoredItem | None:
    return next((item for item in items if item.id == item_id), None)


def _item_not_found(item_id: str) -> NotFound:
    return NotFound(f"Item with id '{quotable(item_id)}' not found in this conversation.", param="item_id")
