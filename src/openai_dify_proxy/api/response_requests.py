"""Responses requests, with the replies that their input references."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from openai_dify_proxy.api.services import Services
from openai_dify_proxy.errors import ResponseNotFound
from openai_dify_proxy.translate.openai.chat_request import end_user_of
from openai_dify_proxy.translate.openai.responses_items import reply_of_response
from openai_dify_proxy.translate.openai.responses_request import (
    Replies,
    check_referenced_text,
    read_responses_messages,
    referenced_responses,
)
from openai_dify_proxy.translate.openai.tool_request import RequestedOutput, read_responses_output
from openai_dify_proxy.translate.turn_request import HistoryMessage, RequestIdentity, TurnMessages
from openai_dify_proxy.translate.usage_estimates import characters_of
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.large_requests import run_sized
from openai_dify_proxy.wire.openai.responses import ResponsesRequest


async def read_response_request(
    services: Services, caller: Caller, identity: RequestIdentity, body: ResponsesRequest, size: int
) -> tuple[TurnMessages, RequestedOutput]:
    """Return the messages of a request of ``size`` bytes, and what it asks of the answer. Raises InvalidRequest."""
    replies = await _referenced(services, caller, body, identity)
    return await run_sized(partial(_translate, body, replies), size)


def _translate(body: ResponsesRequest, replies: Replies) -> tuple[TurnMessages, RequestedOutput]:
    return read_responses_messages(body, replies), read_responses_output(body)


async def _referenced(
    services: Services, caller: Caller, body: ResponsesRequest, identity: RequestIdentity
) -> dict[str, HistoryMessage]:
    """Return the replies of the responses that the input references by id. Raises InvalidRequest if they are long."""
    end_user = end_user_of(body, identity)
    replies: dict[str, HistoryMessage] = {}
    characters = 0
    for name in referenced_responses(body):
        with suppress(ResponseNotFound):  # rejected later, with its position in the input
            entry = await services.stored.responses.load(caller, name, end_user, strictly=True)
            replies[name] = reply_of_response(services.stored.response_of(name, entry))
            characters += characters_of(replies[name])
            check_referenced_text(characters)
    return replies
