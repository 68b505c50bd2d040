"""Encode events of a streamed response as frames: ``event: <type>``, ``data: {json}`` and an empty line."""

from __future__ import annotations

from msgspec import json

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.wire.openai.chat import ErrorObject
from openai_dify_proxy.wire.openai.responses import (
    CallDeltaEvent,
    ErrorEvent,
    KeepaliveEvent,
    OutputTextDeltaEvent,
    RefusalDeltaEvent,
    Response,
    ResponseEvent,
    StreamEvent,
)


def encode_event(event: StreamEvent) -> bytes:
    """Return the frame of an event."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), json.encode(event))


def delta_template(event: OutputTextDeltaEvent | RefusalDeltaEvent | CallDeltaEvent) -> bytes:
    """Return the frame of an empty delta, with ``%d`` for its number and ``%b`` for its text in JSON."""
    frame = encode_event(event).replace(b"%", b"%%")
    return frame.replace(b'"sequence_number":0', b'"sequence_number":%d', 1).replace(b'"delta":""', b'"delta":%b')


def encode_keepalive(number: int) -> bytes:
    """Return a heartbeat; ``number`` is the number of the next frame."""
    return encode_event(KeepaliveEvent(sequence_number=number - 1))


def encode_failure(failed: Response, error: ProxyError, number: int) -> bytes:
    """Return the last two frames of a failed stream; ``number`` is the number of the first.

    No ``[DONE]`` follows, since it marks a complete answer.
    """
    ending = ResponseEvent(type="response.failed", sequence_number=number + 1, response=failed)
    return encode_stream_error(error, number) + encode_event(ending)


def encode_stream_error(error: ProxyError, number: int) -> bytes:
    """Return the last frame of an interrupted stream; the response itself may continue."""
    error_object = ErrorObject(error.message, error.type, error.param, error.code)
    return encode_event(ErrorEvent(sequence_number=number, error=error_object))
