"""Built-in facts about well-known models: the polarity of their masks, and their inputs while no schema is available.

The inputs are a fallback: a model's own schema is the authority, and the next request tries to load it again. Models
without an entry are assumed to have the parameters of the specification; Replicate validates the values.
"""

from __future__ import annotations

from typing import Literal

from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs

Colour = Literal["black", "white"]

_REPAINT_BLACK = frozenset(
    {
        "ideogram-ai/ideogram-v2",
        "ideogram-ai/ideogram-v2-turbo",
        "ideogram-ai/ideogram-v3-balanced",
        "ideogram-ai/ideogram-v3-quality",
        "ideogram-ai/ideogram-v3-turbo",
        "stability-ai/stable-diffusion",
    }
)
"""The models that repaint the black areas of a mask. Schemas state this only in descriptions, if at all."""


def repainted_colour(model: str | None) -> Colour:
    """Return the colour of the areas that the model ``owner/name`` repaints; white for unknown models."""
    return "black" if model in _REPAINT_BLACK else "white"


def _inputs(*fields: ModelInput) -> ModelInputs:
    return ModelInputs({field.name: field for field in fields})


_PROMPT = ModelInput("prompt", "string", required=True)
_SEED = ModelInput("seed", "integer")
_UNCHECKED = ModelInput("disable_safety_checker", "boolean")
_OUTPUT_FORMAT = ModelInput("output_format", "string", options=("webp", "jpg", "png"), default="webp")
_OUTPUT_QUALITY = ModelInput("output_quality", "integer", minimum=0, maximum=100)
_RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
_ASPECT_RATIO = ModelInput("aspect_ratio", "string", options=_RATIOS, default="1:1")

_SDXL = _inputs(
    ModelInput("prompt", "string"),
    ModelInput("negative_prompt", "string"),
    ModelInput("image", "string", uri=True),
    ModelInput("mask", "string", uri=True),
    ModelInput("width", "integer"),
    ModelInput("height", "integer"),
    ModelInput("num_outputs", "integer", minimum=1, maximum=4),
    ModelInput(
        "scheduler",
        "string",
        options=(
            "DDIM",
            "DPMSolverMultistep",
            "HeunDiscrete",
            "KarrasDPM",
            "K_EULER_ANCESTRAL",
            "K_EULER",
            "PNDM",
        ),
    ),
    ModelInput("num_inference_steps", "integer", minimum=1, maximum=500),
    ModelInput("guidance_scale", "number", minimum=1, maximum=50),
    ModelInput("prompt_strength", "number", minimum=0, maximum=1),
    _SEED,
    _UNCHECKED,
)

_FLUX_SCHNELL = _inputs(
    _PROMPT,
    _ASPECT_RATIO,
    ModelInput("num_outputs", "integer", minimum=1, maximum=4),
    ModelInput("num_inference_steps", "integer", minimum=1, maximum=4),
    _SEED,
    _OUTPUT_FORMAT,
    _OUTPUT_QUALITY,
    _UNCHECKED,
)

_FLUX_DEV = _inputs(
    _PROMPT,
    _ASPECT_RATIO,
    ModelInput("image", "string", uri=True),
    ModelInput("prompt_strength", "number", minimum=0, maximum=1),
    ModelInput("num_outputs", "integer", minimum=1, maximum=4),
    ModelInput("num_inference_steps", "integer", minimum=1, maximum=50),
    ModelInput("guidance", "number", minimum=0, maximum=10),
    _SEED,
    _OUTPUT_FORMAT,
    _OUTPUT_QUALITY,
    _UNCHECKED,
)

_UPSCALER = _inputs(
    ModelInput("image", "string", uri=True, required=True),
    ModelInput("scale", "number", minimum=0, maximum=10, default=4, description="Scale factor"),
)

KNOWN_MODELS = {
    "stability-ai/sdxl": _SDXL,
    "black-forest-labs/flux-schnell": _FLUX_SCHNELL,
    "black-forest-labs/flux-dev": _FLUX_DEV,
    "nightmareai/real-esrgan": _UPSCALER,
}

WELL_KNOWN = frozenset({*KNOWN_MODELS, *_REPAINT_BLACK})
"""All image models that this module names."""

UNKNOWN_MODEL = _inputs(
    ModelInput("prompt", "string"),
    ModelInput("negative_prompt", "string"),
    ModelInput("image", "string", uri=True),
    ModelInput("mask", "string", uri=True),
    ModelInput("width", "integer"),
    ModelInput("height", "integer"),
    ModelInput("num_outputs", "integer", minimum=1, maximum=4),
    ModelInput("scheduler", "string"),
    ModelInput("num_inference_steps", "integer", minimum=1, maximum=500),
    ModelInput("guidance_scale", "number", minimum=1, maximum=20),
    ModelInput("prompt_strength", "number", minimum=0, maximum=1),
    _SEED,
)


def suggest_model(name: str) -> str | None:
    """Return the known model that ``name`` means without its owner, or None."""
    return next((model for model in KNOWN_MODELS if model.partition("/")[2] == name.lower()), None)
