"""The messages of ``POST /v1/feedback``, a route of the proxy's own."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.json import Decoder

from openai_dify_proxy.wire.openai.chat import ModelName

Rating = Literal["like", "dislike"]


class FeedbackRequest(Struct, kw_only=True):
    """``message_id`` is ``dify.message_id`` of an answer; a null ``rating`` revokes the earlier one.

    ``model``, ``user`` and ``safety_identifier`` are those of the answer's request.
    """

    message_id: str
    rating: Rating | None
    content: str | None = None
    model: ModelName | None = None
    user: str | None = None
    safety_identifier: str | None = None


class Feedback(Struct, kw_only=True):
    object: Literal["feedback"] = "feedback"
    message_id: str
    rating: Rating | None


FEEDBACK_REQUEST = Decoder(FeedbackRequest)
