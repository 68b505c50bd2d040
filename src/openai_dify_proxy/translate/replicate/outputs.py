"""The output of a prediction as a list of picture URLs, and data URIs."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from openai_dify_proxy.errors import BadPicture

DATA_URI = "data:"
_MALFORMED = "The data URI is malformed. Send data:image/png;base64,… with padded standard base64."


def picture_urls(output: Any) -> list[str]:
    """Return every URL or data URI in an output, in order. Models return a string, a list, an object or null."""
    if isinstance(output, str):
        return [output] if output.startswith(("http://", "https://", DATA_URI)) else []
    if isinstance(output, list):
        return [url for item in output for url in picture_urls(item)]
    if isinstance(output, dict):
        return [url for item in output.values() for url in picture_urls(item)]
    return []


def decode_data_uri(uri: str, limit: int) -> bytes:
    """Return the bytes of a base64 data URI. Raises BadPicture if it is malformed or exceeds ``limit`` bytes."""
    head, comma, data = uri.partition(",")
    if not comma or not head.startswith(DATA_URI) or not head.endswith(";base64"):
        raise BadPicture(_MALFORMED)
    if len(data) * 3 // 4 > limit + 3:
        raise BadPicture(f"The picture is too large. The limit is {limit} bytes.")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise BadPicture(_MALFORMED) from None


def encode_data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
