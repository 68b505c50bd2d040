"""The proxy's errors as OpenAI's envelope."""

from __future__ import annotations

from msgspec import json

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.wire.openai.chat import ErrorEnvelope, ErrorObject


def encode_error(error: ProxyError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``, the body of an HTTP error."""
    return json.encode(ErrorEnvelope(ErrorObject(error.message, error.type, error.param, error.code)))


def encode_error_frame(error: ProxyError) -> bytes:
    """The last frame of a chat stream that fails; no ``[DONE]`` follows, so that nobody takes it for an end."""
    return b"data: " + encode_error(error) + b"\n\n"
