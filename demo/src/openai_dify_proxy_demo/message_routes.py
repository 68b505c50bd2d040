"""The routes of one message: its rating, and questions that may follow it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from openai_dify_proxy_demo.calls import Call, require_chat, validation_error
from openai_dify_proxy_demo.dialects import CHAT_MODES, Mode
from openai_dify_proxy_demo.memory import Message
from openai_dify_proxy_demo.replies import ApiError

SUGGESTIONS = ("What is next?", "Why so?", "Who says?")

_RATINGS = ("like", "dislike")


def suggests(mode: Mode) -> bool:
    """Return whether an app suggests questions after its answers. A New Agent cannot."""
    return mode in CHAT_MODES and mode != "agent"


async def list_suggestions(call: Call) -> Response:
    """Return questions that may follow a message. A real Dify calls its model for them."""
    require_chat(call)
    if not suggests(call.app.mode):
        raise ApiError(400, "bad_request", "Suggested Questions Is Disabled.")
    _require_message(call)
    return call.reply({"result": "success", "data": list(SUGGESTIONS)})


async def rate_message(call: Call) -> Response:
    """Store the rating of a message; null revokes it."""
    body: dict[str, Any] = call.body if isinstance(call.body, dict) else {}
    rating = body.get("rating")
    if rating is not None and rating not in _RATINGS:
        raise validation_error(
            "MessageFeedbackPayload", "rating", "Input should be 'like' or 'dislike'", text=str(rating)
        )
    message = _require_message(call)
    if message is not None:
        message.feedback = None if rating is None else {"rating": rating}
    return call.reply({"result": "success"})


def _require_message(call: Call) -> Message | None:
    """Return the message of the path, or None if its app stores none. Raise ApiError if it is not the user's."""
    name, app, user = str(call.request.path_params["message_id"]), call.app.name, call.user
    for conversation in call.state.conversations.values():
        if (conversation.app, conversation.user) == (app, user):
            for message in conversation.messages:
                if message.id == name:
                    return message
    if not any((run.message_id, run.app, run.user) == (name, app, user) for run in call.state.log.runs):
        raise ApiError(404, "not_found", "Message Not Exists.")
    return None
