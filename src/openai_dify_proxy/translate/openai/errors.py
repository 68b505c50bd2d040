"""Encode the proxy's errors in OpenAI's envelope."""

from __future__ import annotations

from msgspec import json

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.wire.openai.chat import ErrorEnvelope, ErrorObject


def encode_error(error: ProxyError) -> bytes:
    """Return the body of an HTTP error: ``{"error": {"message", "type", "param", "code"}}``."""
    return json.encode(ErrorEnvelope(ErrorObject(error.message, error.type, error.param, error.code)))


def encode_error_frame(error: ProxyError) -> bytes:
    """Return the last frame of a failed chat stream. No ``[DONE]`` follows, since it marks a complete answer."""
    return b"data: " + encode_error(error) + b"\n\n"
