"""``POST /v1/responses/input_tokens``. Dify counts no tokens in advance, so the number is an estimate."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response, read_json
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import responder_of
from openai_dify_proxy.api.response_requests import read_response_request
from openai_dify_proxy.api.services import identity_of, services_of
from openai_dify_proxy.translate.openai.chat_request import end_user_of, make_turn
from openai_dify_proxy.translate.openai.input_tokens import estimate_input_tokens
from openai_dify_proxy.wire.openai.responses import RESPONSES_REQUEST, InputTokens


async def count_input_tokens(request: Request) -> Response:
    """Estimate the tokens of a response's input, with the history that it continues. Nothing is sent to an app."""
    services = services_of(request)
    caller = await services.admit(request)
    data = await services.bodies.read(request)
    body = read_json(data, RESPONSES_REQUEST)
    identity = identity_of(request, caller)
    messages, requested = await read_response_request(services, caller, identity, body, len(data))
    add_notice(responder_of(request.scope), requested.unsupported)
    services.apps.choose(caller, body.model)  # rejects unknown models
    stored, earlier = await services.continuations.read(
        caller,
        end_user=end_user_of(body, identity),
        previous=body.previous_response_id,
        conversation=body.conversation_name,
    )
    turn_request = make_turn(body, messages, identity, stored, requested)
    return json_response(InputTokens(input_tokens=estimate_input_tokens(turn_request, earlier)))
