"""``POST /v1/chat/completions``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from openai_dify_proxy.api.generation import answer_turn
from openai_dify_proxy.api.services import identity_of, services_of
from openai_dify_proxy.translate.openai.chat_answers import encode_chat_completion
from openai_dify_proxy.translate.openai.chat_streams import ChatStreamEncoder
from openai_dify_proxy.translate.openai.responses_request import read_chat_or_input_request
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST


async def create_chat_completion(request: Request) -> ASGIApp:
    """Create a chat completion, streamed or whole."""
    services = services_of(request)
    caller = services.authenticator.admit(request)
    body = await services.bodies.read_json(request, CHAT_OR_INPUT_REQUEST)
    return await answer_turn(
        request,
        services,
        caller,
        body,
        read_chat_or_input_request(body, identity_of(request, caller)),
        kind="chatcmpl",
        stream=ChatStreamEncoder,
        whole=encode_chat_completion,
    )
