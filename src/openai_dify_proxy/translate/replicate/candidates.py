"""The names that models use for each parameter."""

from __future__ import annotations

import re

from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs

CANDIDATES: dict[str, tuple[str, ...]] = {
    "output_format": ("output_format",),
    "output_quality": ("output_quality", "output_compression"),
    "scheduler": ("scheduler", "sampler"),
    "num_inference_steps": ("num_inference_steps", "steps", "num_steps"),
    "guidance_scale": ("guidance_scale", "guidance", "cfg_scale", "cfg"),
    "seed": ("seed",),
    "negative_prompt": ("negative_prompt",),
    "prompt_strength": ("prompt_strength", "strength"),
    "num_outputs": ("num_outputs", "num_images", "number_of_images", "num_images_per_prompt", "max_images"),
    "safety_checker": ("disable_safety_checker", "safety_tolerance", "safety_filter_level"),
    "enhance_prompt": ("prompt_upsampling", "enhance_prompt", "magic_prompt_option"),
    "upscale": ("upscale", "upscale_factor", "scale"),
    "style_preset": ("style_preset", "style", "style_type"),
    "init_image": ("init_image", "image", "input_image", "img", "image_input", "input_images", "image_prompt"),
    "mask": ("mask", "mask_image"),
}
"""The input names for each parameter. The first one that a model has is used."""

PROMPT_NAMES = ("prompt", "text")


def picture_input(model: ModelInputs, parameter: str) -> ModelInput | None:
    """Return the input for the ``init_image`` or the ``mask``: a string or list with one of the usual names."""
    kinds = ("string", "array") if parameter == "init_image" else ("string",)
    fields = (model.fields.get(name) for name in CANDIDATES[parameter])
    return next((field for field in fields if field is not None and field.kind in kinds and not field.options), None)


_ENLARGES = re.compile(r"up-?scal|enlarg|(?:re)?scaling factor|scale factor|scale (?:the |this )?image", re.IGNORECASE)


def factor_input(model: ModelInputs) -> ModelInput | None:
    """Return the input for the upscale factor. ``scale`` counts only by its description: it may mean the guidance."""
    scale = model.fields.get("scale")
    is_factor = scale is not None and _ENLARGES.search(scale.description)
    return model.fields.get("upscale_factor") or (scale if is_factor else None)
