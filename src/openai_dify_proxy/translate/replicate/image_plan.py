"""Image requests before and after planning for one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.translate.pictures.accept import AcceptedFormats
from openai_dify_proxy.translate.pictures.formats import OutputFormat
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.known_models import Colour
from openai_dify_proxy.translate.replicate.model_schema import ModelInput

Policy = Literal["reject", "warn", "drop"]


class ImageParameters(Struct, frozen=True, kw_only=True):
    """The parameters of a request, independent of the model.

    ``headers`` are values by parameter, ``unknown`` the names of unknown image headers, ``body`` the OpenAI fields
    of the body, and ``extra`` its ``input`` object. ``accepted`` are the formats for an answer in bytes.

    ``has_init`` and ``has_mask`` state whether there is an initial image and a mask. ``init_param`` and ``mask_param``
    are the fields or headers that they came in; ``more_param`` is the field of the second initial image, if any.
    """

    prompt: str | None
    n: int | None = None
    headers: Mapping[str, Any] = {}
    unknown: tuple[str, ...] = ()
    body: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    has_init: bool = False
    has_mask: bool = False
    init_param: str = HEADER_OF["init_image"]
    more_param: str | None = None
    mask_param: str = HEADER_OF["mask"]
    accepted: AcceptedFormats | None = None

    def sent_as(self, parameter: str) -> str:
        """Return the header or field that a parameter of ``headers``, or a picture, was sent in."""
        pictures = {"init_image": self.init_param, "mask": self.mask_param}
        return pictures.get(parameter, HEADER_OF[parameter])


class ImageRules(Struct, frozen=True, kw_only=True):
    """The settings that apply to a request.

    ``policy`` is for unsupported parameters. ``defaults`` are the inputs of an alias. ``mask_repaints`` is the colour
    of the areas of a mask that the model repaints.
    """

    policy: Policy = "reject"
    allow_unsafe: bool = True
    defaults: Mapping[str, Any] = {}
    can_enhance: bool = False
    can_upscale: bool = False
    mask_repaints: Colour = "white"


class ImagePlan(Struct, frozen=True, kw_only=True):
    """The inputs of each prediction, and the steps before and after.

    ``prompt_input``, ``init_input`` and ``mask_input`` are the inputs for the prompt and the pictures. ``enhance`` and
    ``upscale`` are set if the proxy has to do that for the model; ``upscale_factor`` is None for the upscaler's
    default. ``convert`` is set if the model may return another format than ``output_format``. ``notices`` are the
    names of dropped parameters.
    """

    predictions: tuple[dict[str, Any], ...]
    n: int
    output_format: OutputFormat
    convert: bool
    quality: int | None = None
    prompt_input: str | None = None
    init_input: ModelInput | None = None
    mask_input: ModelInput | None = None
    invert_mask: bool = False
    enhance: bool = False
    upscale: bool = False
    upscale_factor: int | None = None
    notices: tuple[str, ...] = ()
