"""Maps an image request to the inputs of a Dify app that makes pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.pictures.formats import OutputFormat
from openai_dify_proxy.translate.replicate.conflicts import FORMATS, reject_conflicts
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, Policy
from openai_dify_proxy.translate.replicate.sizes import parse_size

_BY_PROXY = ("output_format", "output_quality")
"""The parameters whose headers work for every model, since the proxy converts."""

_FIELDS = ("size", "quality", "style", "background", "seed")
"""OpenAI's fields that an input of the same name takes."""

MASK = "mask"
"""The name of the file input that takes the mask."""


class PicturePlan(Struct, frozen=True, kw_only=True):
    """What a request asks of an app: ``n`` runs with these inputs, each for a picture in ``output_format``.

    ``quality`` is that of conversions; ``notices`` are the names of dropped parameters.
    """

    inputs: dict[str, Any]
    n: int
    output_format: OutputFormat
    quality: int | None
    notices: tuple[str, ...]


def plan_app_pictures(
    parameters: ImageParameters, profile: AppProfile, defaults: Mapping[str, Any], policy: Policy
) -> PicturePlan:
    """Return the plan for a request; ``defaults`` are the configured inputs, ``policy`` is for unknown inputs.

    Raises InvalidRequest for headers of Replicate, a request without a prompt, and a mask that the app cannot take.
    """
    reject_conflicts(parameters)
    _reject_headers(parameters)
    if parameters.prompt is None:
        raise InvalidRequest(
            "This model is a Dify app, which needs a prompt. Use /v1/images/generations or /v1/images/edits.",
            param="prompt",
            code="missing_required_parameter",
        )
    form = {field.name: field for field in profile.form}
    notices: list[str] = []
    inputs = {**defaults, **_fields(parameters, form, notices), **_extra(parameters, form, policy, notices)}
    if parameters.has_mask and (MASK not in form or form[MASK].files is None):
        raise InvalidRequest(
            "This model is a Dify app without an input 'mask' for a file. Send the image without a mask.",
            param=parameters.mask_param,
            code="unsupported_parameter",
        )
    return PicturePlan(
        inputs=inputs,
        n=parameters.n or 1,
        output_format=_format(parameters, notices),
        quality=_quality(parameters, notices),
        notices=tuple(notices),
    )


def _reject_headers(parameters: ImageParameters) -> None:
    names = [HEADER_OF[parameter] for parameter in parameters.headers if parameter not in _BY_PROXY]
    for name in (*names, *parameters.unknown):
        raise InvalidRequest(
            f"{name} is a header for models on Replicate, and this model is a Dify app. Omit it; inputs of the app go "
            'into the field "input" of the body.',
            param=name,
            code="unsupported_parameter",
        )


def _fields(parameters: ImageParameters, form: Mapping[str, InputField], notices: list[str]) -> dict[str, Any]:
    """Return the inputs for OpenAI's fields. A field that no input takes is dropped with a notice."""
    inputs: dict[str, Any] = {}
    for name in _FIELDS:
        value = parameters.body.get(name)
        if value is None or (name == "size" and parse_size(str(value)) is None):
            continue
        field = form.get(name)
        if field is None or not _takes(field, value):
            notices.append(name)
        else:
            inputs[name] = value if field.kind == "number" else str(value)
    return inputs


def _takes(field: InputField, value: Any) -> bool:
    if field.kind == "number":
        return isinstance(value, int)
    if field.options:
        return value in field.options
    return field.is_text and field.fits(str(value))


def _extra(
    parameters: ImageParameters, form: Mapping[str, InputField], policy: Policy, notices: list[str]
) -> dict[str, Any]:
    """Return the inputs in the body's ``input`` that the app has."""
    unknown = [name for name in parameters.extra if name not in form]
    if unknown and policy == "reject":
        raise InvalidRequest(
            f"This model has no input '{unknown[0][:100]}'. Its inputs are: {', '.join(form) or 'none'}.",
            param=f"input.{unknown[0]}",
            code="unsupported_parameter",
        )
    if policy == "warn":
        notices += [f"input.{name}" for name in unknown]
    return {name: value for name, value in parameters.extra.items() if name in form}


def _format(parameters: ImageParameters, notices: list[str]) -> OutputFormat:
    """Choose by header, body and ``Accept``; the default is PNG."""
    body, by_header = parameters.body.get("output_format"), parameters.headers.get("output_format")
    requested: OutputFormat | None = by_header or FORMATS.get(str(body).lower())
    if body is not None and requested is None:
        notices.append("output_format")
    if parameters.accepted is None:
        return requested or "png"
    chosen = parameters.accepted.choose(requested, None)
    if requested is not None and chosen != requested:
        notices.append(HEADER_OF["output_format"] if by_header else "output_format")
    return chosen


def _quality(parameters: ImageParameters, notices: list[str]) -> int | None:
    quality = parameters.headers.get("output_quality", parameters.body.get("output_compression"))
    if quality is not None and not 0 <= quality <= 100:  # of the body: the header has been validated
        notices.append("output_compression")
        return None
    return None if quality is None else int(quality)
