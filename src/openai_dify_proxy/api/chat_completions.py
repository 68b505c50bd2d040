"""``POST /v1/chat/completions``."""

from __future__ import annotations

from functools import partial

from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from openai_dify_proxy.api.bodies import hold_memory, read_json
from openai_dify_proxy.api.generation import AnswerForm, answer_turn
from openai_dify_proxy.api.services import identity_of, services_of
from openai_dify_proxy.translate.openai.chat_answers import encode_chat_completion
from openai_dify_proxy.translate.openai.chat_streams import ChatStreamEncoder
from openai_dify_proxy.translate.openai.responses_request import read_chat_or_input_request
from openai_dify_proxy.translate.turn_request import RequestIdentity, TurnRequest
from openai_dify_proxy.turns.large_requests import run_sized
from openai_dify_proxy.wire.openai.chat import CompletionFields
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST

CHAT_FORM = AnswerForm("chatcmpl", ChatStreamEncoder, encode_chat_completion)


async def create_chat_completion(request: Request) -> ASGIApp:
    """Create a chat completion, streamed or whole."""
    services = services_of(request)
    caller = await services.admit(request)
    data = await services.bodies.read(request)
    body, turn_request = await run_sized(partial(read_chat, data, identity_of(request, caller)), len(data))
    del data  # the turn needs only the texts and files in it
    hold_memory(request, turn_request.contents)
    return await answer_turn(request, services, caller, body, turn_request, form=CHAT_FORM)


def read_chat(data: bytes | bytearray, identity: RequestIdentity) -> tuple[CompletionFields, TurnRequest]:
    """Return a body's fields and its turn. Raises InvalidRequest."""
    body = read_json(data, CHAT_OR_INPUT_REQUEST)
    turn_request = read_chat_or_input_request(body, identity)
    body.messages, body.input = UNSET, None  # the turn has their texts and files
    return body, turn_request
