"""The routes that list, rename and delete conversations, and list their messages and variables."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from openai_dify_proxy_demo.calls import Call, conversation_not_found, require_chat
from openai_dify_proxy_demo.dialects import Dialect
from openai_dify_proxy_demo.guide import OPENING
from openai_dify_proxy_demo.memory import Conversation, Message
from openai_dify_proxy_demo.replies import ApiError, version_headers

NIL = "00000000-0000-0000-0000-000000000000"
"""The parent id of every turn of the API."""

MAX_PAGE_SIZE = 100


async def list_conversations(call: Call) -> Response:
    """List the user's conversations after `last_id`, most recently used first."""
    require_chat(call)
    user = call.request.query_params.get("user") or "DEFAULT-USER"
    owned = [
        conversation
        for conversation in reversed(call.state.conversations.values())
        if (conversation.app, conversation.user) == (call.app.name, user)
    ]
    owned.sort(key=lambda conversation: conversation.updated_at, reverse=True)
    if last_id := call.request.query_params.get("last_id"):
        positions = [position for position, conversation in enumerate(owned) if conversation.id == last_id]
        if not positions:
            raise ApiError(404, "not_found", "Last Conversation Not Exists.")
        owned = owned[positions[0] + 1 :]
    limit = _limit(call)
    return _page(call, limit, [_conversation_row(conversation) for conversation in owned[:limit]], len(owned))


async def list_messages(call: Call) -> Response:
    """List the newest turns of a conversation, oldest first; with `first_id`, only turns of earlier seconds."""
    require_chat(call)
    conversation = _conversation(call, call.request.query_params.get("conversation_id", ""))
    rows = conversation.newest_first()
    if first_id := call.request.query_params.get("first_id"):
        first = next((message for message in rows if message.id == first_id), None)
        if first is None:
            raise ApiError(404, "not_found", "First Message Not Exists.")
        rows = [message for message in rows if message.created_at < first.created_at]
    limit = _limit(call)
    page = [_message_row(conversation, message, call.dialect) for message in reversed(rows[:limit])]
    return _page(call, limit, page, len(rows))


async def list_variables(call: Call) -> Response:
    """List the variables of a conversation. The demo's chatflows have none."""
    require_chat(call)
    _conversation(call, call.request.path_params["conversation_id"])
    return _page(call, _limit(call), [], 0)


async def rename_conversation(call: Call) -> Response:
    """Rename a conversation, or name it after its first message."""
    require_chat(call)
    conversation = _conversation(call, call.request.path_params["conversation_id"])
    changes = call.body if isinstance(call.body, dict) else {}
    if changes.get("auto_generate"):
        conversation.name = f"About: {conversation.messages[0].query[:40]}"
    elif changes.get("name"):
        conversation.name = str(changes["name"])
    else:
        raise ApiError(400, "invalid_param", "name is required when auto_generate is false")
    conversation.updated_at = int(call.state.clock())
    return call.reply(_conversation_row(conversation))


async def delete_conversation(call: Call) -> Response:
    """Delete a conversation. Since 1.0 Dify does not check its user or whether it exists."""
    require_chat(call)
    conversation_id = call.request.path_params["conversation_id"]
    if call.dialect.delete_returns_body:
        del call.state.conversations[_conversation(call, conversation_id).id]
        return call.reply({"result": "success"})
    call.state.conversations.pop(conversation_id, None)
    return Response(status_code=204, headers=version_headers(call.dialect), media_type="application/json")


def _conversation(call: Call, conversation_id: str) -> Conversation:
    """Return a conversation. Raise ApiError if the app and user have none with this id."""
    conversation = call.state.conversation(conversation_id, call.app, call.user)
    if conversation is None:
        raise conversation_not_found(call)
    return conversation


def _limit(call: Call) -> int:
    text = call.request.query_params.get("limit", "20")
    if not text.isdigit() or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise ApiError(400, "invalid_param", f"limit must be a number from 1 to {MAX_PAGE_SIZE}")
    return int(text)


def _page(call: Call, limit: int, rows: list[dict[str, Any]], total: int) -> Response:
    return call.reply({"limit": limit, "has_more": total > limit, "data": rows})


def _conversation_row(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "name": conversation.name,
        "inputs": conversation.inputs,
        "status": "normal",
        "introduction": OPENING,
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
    }


def _message_row(conversation: Conversation, message: Message, dialect: Dialect) -> dict[str, Any]:
    usage = message.usage.fields()
    row = {
        "id": message.id,
        "conversation_id": conversation.id,
        "parent_message_id": NIL,
        "inputs": message.inputs,
        "query": message.query,
        "answer": message.answer,
        "message_files": [],
        "feedback": message.feedback,
        "retriever_resources": [],
        "created_at": message.created_at,
        "agent_thoughts": [_thought_row(thought, dialect) for thought in message.thoughts.values()],
        "status": message.status,
        "error": message.error,
        "extra_contents": [],
        "message_tokens": usage["prompt_tokens"],
        "answer_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "total_price": usage["total_price"],
        "currency": usage["currency"],
        "provider_response_latency": usage["latency"] if message.answer else 0.0,
    }
    return {name: row[name] for name in dialect.message_fields}


def _thought_row(thought: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return an agent step as a row of `agent_thoughts`, from its last event."""
    row = {
        **thought,
        "chain_id": None,
        "files": thought["message_files"],
    }
    return {name: row[name] for name in dialect.thought_fields}
