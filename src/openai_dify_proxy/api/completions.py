"""``POST /v1/completions``, OpenAI's legacy text completion, over the same turn as a chat."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.proxy import proxy_of
from openai_dify_proxy.api.responses import TurnStream, turn_headers, whole_answer
from openai_dify_proxy.translate.openai_answers import encode_text_completion
from openai_dify_proxy.translate.openai_streams import CompletionStreamEncoder
from openai_dify_proxy.translate.turn_request import read_completion_request
from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST


async def create_completion(request: Request) -> Response:
    """A text completion, streamed or whole."""
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    body = await proxy.gate.read(request, COMPLETION_REQUEST)
    turn_request = proxy.with_headers(read_completion_request(body), request)
    running = await proxy.turns.begin(caller, body.model, turn_request)
    head = proxy.head("cmpl", running.model)
    if body.stream:
        return TurnStream(
            proxy.turns, running, CompletionStreamEncoder(head, include_usage=body.wants_usage), proxy.pulse
        )
    answer = await whole_answer(request, proxy.turns, running)
    ids = running.turn.ids
    return Response(encode_text_completion(head, answer, ids), 200, turn_headers(ids), "application/json")
