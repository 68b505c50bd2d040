"""Rejects contradictions between parameters, before the model matters."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.pictures.formats import OutputFormat
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters

FORMATS: dict[str, OutputFormat] = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "webp": "webp"}
"""The output formats by their names in requests and schemas."""

_SAME_MEANING = {"seed": "seed", "output_format": "output_format", "output_quality": "output_compression"}
_MAX_SHOWN = 50


def conflict(parameters: ImageParameters, parameter: str, field: str, value: Any) -> InvalidRequest:
    """Return the error for the header of ``parameter`` and a body field with a different value."""
    by_header = parameters.headers[parameter]
    if isinstance(by_header, bool):
        by_header = "yes" if by_header else "no"
    return InvalidRequest(
        f"{HEADER_OF[parameter]} is '{_shorten(by_header)}', but {field} is '{_shorten(value)}'. "
        "Send one of them, or the same value in both.",
        param=HEADER_OF[parameter],
    )


def reject_conflicts(parameters: ImageParameters) -> None:
    """Raise InvalidRequest if a header and the body field of the same meaning have different values."""
    fields = {name: (field, parameters.body.get(field)) for name, field in _SAME_MEANING.items()}
    for name, (field, value) in {"num_outputs": ("n", parameters.n), **fields}.items():
        if value is None or name not in parameters.headers:
            continue
        normalized = FORMATS.get(str(value).lower()) if name == "output_format" else value
        if normalized != parameters.headers[name]:
            raise conflict(parameters, name, field, value)


def reject_incomplete(parameters: ImageParameters) -> None:
    """Raise InvalidRequest if a header has no effect without another parameter."""
    for name, present in (("mask", parameters.has_mask), ("prompt_strength", False)):
        if (present or name in parameters.headers) and not parameters.has_init:
            param = parameters.sent_as(name)
            raise InvalidRequest(
                f"{param} requires an initial image. Send X-Replicate-Init-Image, or use /v1/images/edits.", param=param
            )
    if "upscale_factor" in parameters.headers and not parameters.headers.get("upscale"):
        param = HEADER_OF["upscale_factor"]
        raise InvalidRequest(f"{param} requires X-Replicate-Upscale: yes.", param=param)


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
