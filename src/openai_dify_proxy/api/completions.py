"""``POST /v1/completions``, OpenAI's legacy text completions. They run the same turns as chats."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from openai_dify_proxy.api.generation import AnswerForm, answer_turn
from openai_dify_proxy.api.services import identity_of, services_of
from openai_dify_proxy.translate.openai.chat_answers import encode_text_completion
from openai_dify_proxy.translate.openai.chat_request import read_completion_request
from openai_dify_proxy.translate.openai.chat_streams import CompletionStreamEncoder
from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST

TEXT_FORM = AnswerForm("cmpl", CompletionStreamEncoder, encode_text_completion)


async def create_completion(request: Request) -> ASGIApp:
    """Create a text completion, streamed or whole."""
    services = services_of(request)
    caller = await services.admit(request)
    body = await services.bodies.read_json(request, COMPLETION_REQUEST)
    turn_request = read_completion_request(body, identity_of(request, caller))
    return await answer_turn(request, services, caller, body, turn_request, form=TEXT_FORM)
