"""Describes the effect of each header with one model, for the command ``models``.

It uses the same tables as ``mapping``; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES, PROMPT_NAMES, factor_input, picture_input
from openai_dify_proxy.translate.replicate.counts import counts_of
from openai_dify_proxy.translate.replicate.headers import HEADERS, OUTPUT_FORMATS, ImageHeader
from openai_dify_proxy.translate.replicate.known_models import Colour
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs
from openai_dify_proxy.translate.replicate.safety import most_permissive


class ImageSupportContext(Struct, frozen=True, kw_only=True):
    """The settings that apply to a model: the app that rewrites prompts, the upscaler and its inputs, and rules."""

    enhancer: str | None = None
    upscaler: str | None = None
    upscaler_inputs: ModelInputs | None = None
    allow_unsafe: bool = True
    mask_repaints: Colour = "white"


class HeaderSupport(Struct, frozen=True, kw_only=True):
    """The effect of one header.

    ``takes`` describes the values that have an effect; None if the header is not supported. ``options``, ``minimum``
    and ``maximum`` are the same for programs. ``input`` is the model's input for the header, and ``by`` the part of the
    proxy that implements it for a model without one.
    """

    header: str
    input: str | None = None
    by: str | None = None
    takes: str | None = None
    note: str | None = None
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


def image_support(model: ModelInputs, context: ImageSupportContext) -> list[HeaderSupport]:
    """Return one row for each header, in the order of the specification."""
    return [_with_values(header, _row(header, model, context), model) for header in HEADERS]


def _row(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    return _SPECIAL.get(header.parameter, _plain)(header, model, context)


def _with_values(header: ImageHeader, row: HeaderSupport, model: ModelInputs) -> HeaderSupport:
    """Return the row with its values: the header's own, or those that the model accepts too."""
    if row.takes is None:
        return row
    field = None if header.parameter in _SPECIAL else model.first(CANDIDATES[header.parameter])
    options, minimum, maximum = header.options, header.minimum, header.maximum
    if field is not None and field.options:
        options = tuple(str(option) for option in field.options if _parses(header, option))
    elif field is not None and header.minimum is not None:
        minimum, maximum = _range(header, field)
    if header.options:
        options = tuple(option for option in options if option in row.takes)
    return replace(row, options=options, minimum=minimum, maximum=maximum)


def other_inputs(model: ModelInputs) -> list[ModelInput]:
    """Return the inputs without a header, which requests set by name in ``input``."""
    assigned = {*PROMPT_NAMES, *(name for names in CANDIDATES.values() for name in names)}
    return [field for field in model.fields.values() if field.name not in assigned]


def _plain(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.first(CANDIDATES[header.parameter])
    if field is None:
        return HeaderSupport(header=header.name)
    takes = _narrowed(header, field)
    note = f"the model accepts {field.takes}, the header {header.takes}" if takes is None else None
    return HeaderSupport(header=header.name, input=field.name, takes=takes, note=note)


def _narrowed(header: ImageHeader, field: ModelInput) -> str | None:
    """Describe the values that both the header and the model accept; None if there are none."""
    if field.options:
        both = tuple(option for option in field.options if _parses(header, option))
        return replace(field, options=both).takes if both else None
    if header.minimum is None:
        return header.takes
    low, high = _range(header, field)
    return replace(field, minimum=low, maximum=high).takes if high is None or low <= high else None


def _range(header: ImageHeader, field: ModelInput) -> tuple[float, float | None]:
    """Return the least and the greatest value that both the numeric header and the model accept."""
    assert header.minimum is not None
    low = max(header.minimum, field.minimum) if field.minimum is not None else header.minimum
    return low, min((limit for limit in (header.maximum, field.maximum) if limit is not None), default=None)


def _parses(header: ImageHeader, option: Any) -> bool:
    try:
        header.parse(str(option))
    except ValueError:
        return False
    return True


def _accepts(field: ModelInput, value: Any) -> bool:
    try:
        field.accept(value, field.name)
    except InvalidRequest:
        return False
    return True


def _format(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.first(CANDIDATES["output_format"])
    if field is None:
        return HeaderSupport(header=header.name, by="the proxy, which converts", takes=header.takes)
    known = {str(option).lower().replace("jpeg", "jpg") for option in field.options or OUTPUT_FORMATS}
    missing = [name for name in OUTPUT_FORMATS if name not in known]
    note = f"{' and '.join(missing)} by the proxy, which converts" if missing else None
    return HeaderSupport(header=header.name, input=field.name, takes=header.takes, note=note)


def _quality(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    if model.first(CANDIDATES["output_quality"]) is None:
        return HeaderSupport(header=header.name, by="the proxy, where it converts", takes=header.takes)
    return _plain(header, model, context)


def _count(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.first(CANDIDATES["num_outputs"])
    counts = [] if field is None else counts_of(field)
    if field is None or not counts:
        return HeaderSupport(header=header.name, by="several predictions", takes=header.takes)
    few = header.maximum is not None and counts[-1] < header.maximum
    note = f"more than {counts[-1]} by several predictions" if few else None
    return HeaderSupport(header=header.name, input=field.name, takes=header.takes, note=note)


def _safety(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.first(CANDIDATES["safety_checker"])
    if field is None:
        return HeaderSupport(header=header.name)
    if not context.allow_unsafe:
        return HeaderSupport(header=header.name, input=field.name, takes="yes", note="no is rejected by this server")
    can = _accepts(field, most_permissive(field, with_picture=False))
    return HeaderSupport(header=header.name, input=field.name, takes=header.takes if can else None)


def _enhancement(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.first(CANDIDATES["enhance_prompt"])
    if field is not None:
        can = _accepts(field, True if field.kind == "boolean" else "On")
        return HeaderSupport(header=header.name, input=field.name, takes=header.takes if can else None)
    if context.enhancer is not None:
        return HeaderSupport(header=header.name, by=f"the app {context.enhancer}", takes=header.takes)
    return HeaderSupport(header=header.name)


def _upscaling(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = model.fields.get("upscale") or factor_input(model)
    if field is not None:
        return HeaderSupport(header=header.name, input=field.name, takes=header.takes)
    if context.upscaler is not None:
        return HeaderSupport(header=header.name, by=f"the upscaler {context.upscaler}", takes=header.takes)
    return HeaderSupport(header=header.name)


def _upscale_factor(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = factor_input(model)
    if field is not None or "upscale" in model.fields:
        return HeaderSupport(header=header.name, input=field.name if field else None, takes=_factors(field))
    if context.upscaler is None or context.upscaler_inputs is None:
        return HeaderSupport(header=header.name)
    takes = _factors(context.upscaler_inputs.first(("scale", "upscale_factor")))
    return HeaderSupport(header=header.name, by=takes and f"the upscaler {context.upscaler}", takes=takes)


def _factors(field: ModelInput | None) -> str | None:
    factors = [] if field is None else [str(factor) for factor in (2, 4) if _accepts(field, factor)]
    return " or ".join(factors) or None


def _picture(header: ImageHeader, model: ModelInputs, context: ImageSupportContext) -> HeaderSupport:
    field = picture_input(model, header.parameter)
    if field is None:
        return HeaderSupport(header=header.name)
    note = None
    if field.name == "image_prompt":
        note = "a reference for this model, not an initial image"
    elif header.parameter == "mask" and context.mask_repaints == "black":
        note = "this model repaints black areas: the proxy inverts masks"
    return HeaderSupport(header=header.name, input=field.name, takes=header.takes, note=note)


_SPECIAL: dict[str, Callable[[ImageHeader, ModelInputs, ImageSupportContext], HeaderSupport]] = {
    "output_format": _format,
    "output_quality": _quality,
    "num_outputs": _count,
    "safety_checker": _safety,
    "enhance_prompt": _enhancement,
    "upscale": _upscaling,
    "upscale_factor": _upscale_factor,
    "init_image": _picture,
    "mask": _picture,
}
