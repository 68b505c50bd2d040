"""Which inputs of a model can take a parameter."""

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
"""How models spell each parameter; the first that a model has is the one."""

PROMPT_NAMES = ("prompt", "text")


def picture_input(model: ModelInputs, parameter: str) -> ModelInput | None:
    """The input that takes the ``init_image`` or the ``mask``: by its name, if its kind is one for pictures."""
    kinds = ("string", "array") if parameter == "init_image" else ("string",)
    fields = (model.fields.get(name) for name in CANDIDATES[parameter])
    return next((field for field in fields if field is not None and field.kind in kinds and not field.options), None)


_ENLARGES = re.compile(r"up-?scal|enlarg|(?:re)?scaling factor|scale factor|scale (?:the |this )?image", re.IGNORECASE)


def factor_input(model: ModelInputs) -> ModelInput | None:
    """The input that says by what the model enlarges; ``scale`` may mean other things too, such as the guidance."""
    scale = model.fields.get("scale")
    is_factor = scale is not None and _ENLARGES.search(scale.description)
    return model.fields.get("upscale_factor") or (scale if is_factor else None)
