"""Image requests before and after they are planned for one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.translate.replicate.known_models import Colour
from openai_dify_proxy.translate.replicate.model_schema import ModelInput

Policy = Literal["reject", "warn", "drop"]
Format = Literal["png", "jpg", "webp"]


class ImageParameters(Struct, frozen=True, kw_only=True):
    """What a request asks for, whatever the model.

    ``headers`` are values by the specification's parameter name; ``body`` the OpenAI fields that were given;
    ``extra`` the body's ``input`` object. ``has_init`` and ``has_mask`` tell of pictures, which are placed by
    ``ImagePlan.init_input`` and ``mask_input``; ``has_more`` of further ones beside the initial picture.
    """

    prompt: str | None
    n: int | None = None
    headers: Mapping[str, Any] = {}
    body: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    has_init: bool = False
    has_more: bool = False
    has_mask: bool = False


class ImageRules(Struct, frozen=True, kw_only=True):
    """What the settings say: of unknown parameters, of unsafe pictures, and what an alias adds.

    ``mask_repaints`` is the colour of a mask where the model paints.
    """

    policy: Policy = "reject"
    allow_unsafe: bool = True
    defaults: Mapping[str, Any] = {}
    can_enhance: bool = False
    can_upscale: bool = False
    mask_repaints: Colour = "white"


class ImagePlan(Struct, frozen=True, kw_only=True):
    """What to do: the inputs of each prediction, and what happens around them.

    ``prompt_input``, ``init_input`` and ``mask_input`` name the inputs that take the prompt and the pictures.
    ``enhance`` and ``upscale`` are asked for where the model cannot do them itself; ``upscale_factor`` is None for the
    upscaler's own. ``convert`` tells that the model may give another format than ``output_format``. ``notices`` name
    what was dropped.
    """

    predictions: tuple[dict[str, Any], ...]
    n: int
    output_format: Format
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
