"""``/v1/conversations``: Dify's conversations under ids of the proxy. Only their owner can access them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response, read_json
from openai_dify_proxy.api.services import Services, identity_of, services_of
from openai_dify_proxy.errors import InvalidRequest, NotFound
from openai_dify_proxy.responses.response_store import StoredConversation
from openai_dify_proxy.translate.openai.conversation_items import check_items, check_metadata
from openai_dify_proxy.translate.openai.responses_request import messages_of_input
from openai_dify_proxy.translate.openai.stored_items import StoredItem, pending_calls, split_items
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.conversations import (
    CONVERSATION_REQUEST,
    Conversation,
    ConversationDeleted,
    ConversationRequest,
)


async def create_conversation(request: Request) -> Response:
    """Create a conversation in the state only. Dify creates its own with the first turn."""
    services = services_of(request)
    caller = await services.admit(request)
    body = await read_conversation(services, request)
    store = services.stored.conversations
    name = store.new_id()
    items = read_items(body, name.removeprefix("conv_"))
    check_items(items)
    entry = StoredConversation(
        int(time.time()),
        check_metadata(body.metadata or {}),
        items,
        end_user=await store.end_user_hash(identity_of(request, caller).end_user),
        calls=pending_calls(items),
    )
    await store.put(caller, name, entry)
    return conversation_response(name, entry)


async def retrieve_conversation(request: Request) -> Response:
    services, caller = admit_reader(request)
    name, entry = await load_conversation(services, caller, request)
    return conversation_response(name, entry)


async def update_conversation(request: Request) -> Response:
    """Replace the metadata."""
    services = services_of(request)
    caller = await services.admit(request)
    body = await read_conversation(services, request)
    if body.metadata is None:
        raise InvalidRequest(
            "The request lacks 'metadata', the only field that can be updated.",
            param="metadata",
            code="missing_required_parameter",
        )
    metadata = check_metadata(body.metadata)
    async with locked(services, caller, request):
        name, entry = await load_conversation(services, caller, request)
        entry = structs.replace(entry, metadata=metadata)
        await services.stored.conversations.put(caller, name, entry)
    return conversation_response(name, entry)


async def delete_conversation(request: Request) -> Response:
    """Delete the conversation in Dify and in the state."""
    services = services_of(request)
    caller = await services.admit(request)
    async with locked(services, caller, request):
        name, entry = await load_conversation(services, caller, request)
        for place in (*entry.left, *([entry.place] if entry.place is not None else [])):
            with suppress(NotFound):  # deleted in Dify already, or the app is no longer configured
                await services.turns.delete_conversation(caller, place.model, place.id, place.user)
        await services.stored.conversations.remove(caller, name)
    return json_response(ConversationDeleted(id=name))


def admit_reader(request: Request) -> tuple[Services, Caller]:
    """Return the services and the caller of a request that reads."""
    services = services_of(request)
    return services, services.authenticator.admit(request)


def read_items(body: ConversationRequest, base_id: str) -> list[StoredItem]:
    """Return the items of a request, without those that hold nothing for Dify; their ids contain ``base_id``."""
    messages = messages_of_input(body.items or [], field="items")
    items = [message for message in messages if message.text or message.calls or message.call_id is not None]
    return split_items(items, base_id)


async def read_conversation(services: Services, request: Request) -> ConversationRequest:
    """Read the body; an empty one counts as ``{}``, since the SDKs send none for a request without fields."""
    body = await services.bodies.read(request)
    return read_json(body or b"{}", CONVERSATION_REQUEST)


@asynccontextmanager
async def locked(services: Services, caller: Caller, request: Request) -> AsyncIterator[None]:
    """Lock the conversation, since the end of a running turn would overwrite a change. Raises ConversationBusy."""
    async with await services.stored.lock(caller, request.path_params["conversation_id"]) as lock:
        await lock.acquire(param="conversation_id")
        yield


async def load_conversation(services: Services, caller: Caller, request: Request) -> tuple[str, StoredConversation]:
    name = request.path_params["conversation_id"]
    return name, await services.stored.conversations.load(caller, name, identity_of(request, caller).end_user)


def conversation_response(name: str, entry: StoredConversation) -> Response:
    return json_response(Conversation(id=name, created_at=entry.created_at, metadata=entry.metadata))
