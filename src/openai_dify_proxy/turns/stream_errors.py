"""The errors of Dify streams that end too late, or in another conversation."""

from __future__ import annotations

from openai_dify_proxy.errors import ConversationNotFound, StreamCut, UpstreamTimeout


def turn_timeout(seconds: float) -> UpstreamTimeout:
    message = f"The turn took longer than {seconds:g} s and was stopped. Split the task into smaller ones."
    return UpstreamTimeout(message, code="turn_timeout", started=True)


def no_first_event() -> UpstreamTimeout:
    message = "Dify sent no event in time. It may be overloaded, or the conversation may no longer exist."
    return UpstreamTimeout(message, started=True)


def dead_stream(seconds: float) -> StreamCut:
    message = f"Dify's stream stopped before the answer was complete: no data for {seconds:g} s."
    return StreamCut(message, started=True)


def conversation_lost() -> ConversationNotFound:
    return ConversationNotFound(
        "Dify no longer has this conversation and started another. Send the request again without the id.",
        param="conversation_id",
        started=True,
    )
