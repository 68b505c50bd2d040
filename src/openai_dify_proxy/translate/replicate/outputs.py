"""What a prediction put out, as a list of addresses of pictures."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from openai_dify_proxy.errors import BadPicture

DATA_URI = "data:"


def picture_urls(output: Any) -> list[str]:
    """Every URL or data URI in a string, list or object, in its order; a model may put out any of them, or null."""
    if isinstance(output, str):
        return [output] if output.startswith(("http://", "https://", DATA_URI)) else []
    if isinstance(output, list):
        return [url for item in output for url in picture_urls(item)]
    if isinstance(output, dict):
        return [url for item in output.values() for url in picture_urls(item)]
    return []


def decode_data_uri(uri: str, limit: int) -> bytes:
    """The bytes of a base64 data URI. Raises BadPicture for one that is malformed or larger than ``limit`` bytes."""
    head, comma, data = uri.partition(",")
    if not comma or not head.startswith(DATA_URI) or not head.endswith(";base64"):
        raise BadPicture("The picture's data URI is malformed.")
    if len(data) * 3 // 4 > limit + 3:
        raise BadPicture(f"The picture is larger than {limit} bytes.")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise BadPicture("The picture's data URI is malformed.") from None


def encode_data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
