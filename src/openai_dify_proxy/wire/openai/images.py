"""The messages of ``POST /v1/images/*``.

Requests declare the fields that the proxy uses if the model supports them. Clients send others, which are skipped
without decoding.
Source: the OpenAI API reference, and requests of the official SDKs.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.json import Decoder

from openai_dify_proxy.wire.numbers import read_float


class ImageReference(Struct):
    """An input picture of a JSON edit: a URL, a data URI, or the id of an uploaded file."""

    image_url: str | None = None
    file_id: str | None = None


class ImageRequest(Struct, kw_only=True):
    """A generation, or an edit sent as JSON; ``input`` and ``return_ipfs`` are the proxy's own."""

    prompt: str | None = None
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    user: str | None = None
    seed: int | None = None
    stream: bool | None = None
    partial_images: int | None = None
    images: list[ImageReference] | None = None
    image: str | list[str] | None = None
    mask: ImageReference | str | None = None
    input: dict[str, Any] = field(default_factory=dict)
    return_ipfs: bool = False


class ImageData(Struct, omit_defaults=True, kw_only=True):
    """One picture of an answer; the fields after ``revised_prompt`` are the proxy's own."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    seed: int | None = None
    prediction_id: str | None = None
    cid: str | None = None
    ipfs: str | None = None


class ImagesResponse(Struct, kw_only=True):
    created: int
    data: list[ImageData]
    output_format: str
    url: str | UnsetType = UNSET


class ImageEvent(Struct, kw_only=True):
    """An event of a streamed answer: ``image_generation.*`` or ``image_edit.*``."""

    type: str
    b64_json: str
    created_at: int
    output_format: str
    size: str
    quality: str = "auto"
    background: str = "auto"
    partial_image_index: int | UnsetType = UNSET
    url: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET


IMAGE_REQUEST = Decoder(ImageRequest, float_hook=read_float)
