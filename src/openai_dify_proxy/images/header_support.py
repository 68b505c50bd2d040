"""The effect of each image header on a model, with the settings that apply to it."""

from __future__ import annotations

from openai_dify_proxy.images.models import ImageModel
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate.support import HeaderSupport, ImageSupportContext, image_support


def header_support(
    settings: Settings, model: ImageModel, inputs: ModelInputs, upscaler: ModelInputs | None
) -> list[HeaderSupport]:
    """Return the effect of each header on ``model``; ``upscaler`` holds the inputs of its upscaler, if it has one."""
    context = ImageSupportContext(
        enhancer=settings.enhance_prompt_app,
        upscaler=None if model.upscaler is None else str(model.upscaler),
        upscaler_inputs=upscaler,
        allow_unsafe=settings.allow_unsafe_images,
        mask_repaints=model.mask_repaints,
    )
    return image_support(inputs, context)
