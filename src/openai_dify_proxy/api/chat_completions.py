"""``POST /v1/chat/completions``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.proxy import proxy_of
from openai_dify_proxy.api.responses import TurnStream, turn_headers, whole_answer
from openai_dify_proxy.translate.openai_answers import encode_chat_completion
from openai_dify_proxy.translate.openai_streams import ChatStreamEncoder
from openai_dify_proxy.translate.turn_request import read_chat_request
from openai_dify_proxy.wire.openai.chat import CHAT_COMPLETION_REQUEST


async def create_chat_completion(request: Request) -> Response:
    """A chat completion, streamed or whole."""
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    body = await proxy.gate.read(request, CHAT_COMPLETION_REQUEST)
    turn_request = proxy.with_headers(read_chat_request(body), request)
    running = await proxy.turns.begin(caller, body.model, turn_request)
    head = proxy.head("chatcmpl", running.model)
    if body.stream:
        return TurnStream(proxy.turns, running, ChatStreamEncoder(head, include_usage=body.wants_usage), proxy.pulse)
    answer = await whole_answer(request, proxy.turns, running)
    ids = running.turn.ids
    return Response(encode_chat_completion(head, answer, ids), 200, turn_headers(ids), "application/json")
