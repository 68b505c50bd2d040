"""``POST /v1/feedback``: an end user's rating of an answer, as Dify's thumbs up and down."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response, read_json
from openai_dify_proxy.api.services import identity_of, services_of
from openai_dify_proxy.errors import NotFound
from openai_dify_proxy.translate.openai.parameter_errors import quotable
from openai_dify_proxy.wire.openai.feedback import FEEDBACK_REQUEST, Feedback


async def create_feedback(request: Request) -> Response:
    """Rate an answer of an app. Dify accepts only the end user who received it."""
    services = services_of(request)
    caller = await services.admit(request)
    body = read_json(await services.bodies.read(request), FEEDBACK_REQUEST)
    end_user = identity_of(request, caller).end_user or body.safety_identifier or body.user or None
    if not _is_uuid(body.message_id):
        raise _message_not_found(body.message_id)
    try:
        await services.turns.rate(
            caller, body.model, end_user, body.message_id, rating=body.rating, content=body.content
        )
    except NotFound as error:
        if error.code != "not_found":  # no such model
            raise
        raise _message_not_found(body.message_id) from error
    return json_response(Feedback(message_id=body.message_id, rating=body.rating))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _message_not_found(name: str) -> NotFound:
    return NotFound(
        f"Message with id '{quotable(name)}' not found. Send 'dify.message_id' of an answer, with the model and the "
        "end user of its request.",
        param="message_id",
    )
