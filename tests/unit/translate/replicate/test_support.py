"""Compare the table of supported headers with the plans for the same models, with schemas of real models."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.headers import HEADER_OF, read_image_headers
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan, ImageRules
from openai_dify_proxy.translate.replicate.mapping import plan_images
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs, read_model_inputs
from openai_dify_proxy.translate.replicate.support import (
    HeaderSupport,
    ImageSupportContext,
    image_support,
    other_inputs,
)
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoModel

MODELS = {model.name: model for model in DEMO_MODELS}

SAMPLES = {
    "X-Output-Format": ("jpg", "png", "webp"),
    "X-Output-Quality": ("0", "80", "100"),
    "X-Replicate-Scheduler": ("DDIM", "DPMSolverMultistep", "K_EULER", "K_EULER_ANCESTRAL", "PNDM"),
    "X-Replicate-Num-Inference-Steps": ("1", "4", "50", "500"),
    "X-Replicate-Guidance-Scale": ("1", "3", "7.5", "20"),
    "X-Replicate-Seed": ("0", "4294967296"),
    "X-Replicate-Negative-Prompt": ("rain",),
    "X-Replicate-Prompt-Strength": ("0", "0.5", "1"),
    "X-Replicate-Num-Outputs": ("1", "4"),
    "X-Replicate-Safety-Checker": ("no",),
    "X-Replicate-Enhance-Prompt": ("yes",),
    "X-Replicate-Upscale": ("yes",),
    "X-Replicate-Upscale-Factor": ("2", "4"),
    "X-Replicate-Style-Preset": ("anime", "Realistic"),
    "X-Replicate-Init-Image": ("https://pictures.test/start.png",),
    "X-Replicate-Mask": ("https://pictures.test/mask.png",),
}


def inputs(model: DemoModel) -> ModelInputs:
    return read_model_inputs(model.version_body()["openapi_schema"])


def model_of(*fields: ModelInput) -> ModelInputs:
    return ModelInputs({field.name: field for field in fields})


def row(header: str, model: ModelInputs, around: ImageSupportContext | None = None) -> HeaderSupport:
    return next(row for row in image_support(model, around or ImageSupportContext()) if row.header == header)


def plan(model: ModelInputs, header: str, value: str) -> ImagePlan:
    """Plan a request with this header and the parameters that it requires."""
    values: dict[str, Any] = read_image_headers([(header, value)]).values
    if header == "X-Replicate-Upscale-Factor":
        values["upscale"] = True
    needs_init = header in ("X-Replicate-Init-Image", "X-Replicate-Mask", "X-Replicate-Prompt-Strength")
    wish = ImageParameters(
        prompt="a tree",
        headers={name: value for name, value in values.items() if name not in ("init_image", "mask")},
        extra={
            field.name: "x"
            for field in model.fields.values()
            if field.required and field.kind == "string" and not field.uri and field.name != "prompt"
        },
        has_init=needs_init or any(field.required and field.uri for field in model.fields.values()),
        has_mask=header == "X-Replicate-Mask",
    )
    return plan_images(wish, model, ImageRules())


@pytest.mark.parametrize("header", SAMPLES)
@pytest.mark.parametrize("name", MODELS)
def test_the_table_agrees_with_the_plan(name: str, header: str) -> None:
    model = inputs(MODELS[name])
    support = row(header, model)
    refused = 0
    for value in SAMPLES[header]:
        try:
            planned = plan(model, header, value)
        except InvalidRequest:
            refused += 1
            continue
        pictures = {field.name for field in (planned.init_input, planned.mask_input) if field is not None}
        # Inputs without effect are not sent, for example a switch whose factor is the model's default.
        optional = header in ("X-Replicate-Upscale", "X-Output-Quality")
        assert support.by is not None or support.input in {*planned.predictions[0], *pictures} or optional
    assert (refused == len(SAMPLES[header])) == (support.takes is None)


def test_every_header_has_a_row() -> None:
    rows = image_support(inputs(MODELS["stability-ai/sdxl"]), ImageSupportContext())
    assert [row.header for row in rows] == list(HEADER_OF.values()) == list(SAMPLES)


@pytest.mark.parametrize(
    ("name", "header", "own", "takes"),
    [
        (
            "stability-ai/sdxl",
            "X-Replicate-Scheduler",
            "scheduler",
            "one of DDIM, DPMSolverMultistep, K_EULER_ANCESTRAL, K_EULER, PNDM",
        ),
        ("stability-ai/sdxl", "X-Replicate-Guidance-Scale", "guidance_scale", "a number from 1 to 20"),
        ("black-forest-labs/flux-schnell", "X-Replicate-Guidance-Scale", None, None),
        (
            "black-forest-labs/flux-schnell",
            "X-Replicate-Num-Inference-Steps",
            "num_inference_steps",
            "an integer from 1 to 4",
        ),
        ("black-forest-labs/flux-pro", "X-Replicate-Num-Inference-Steps", "steps", "an integer from 1 to 50"),
        ("black-forest-labs/flux-pro", "X-Replicate-Guidance-Scale", "guidance", "a number from 2 to 5"),
        ("black-forest-labs/flux-kontext-pro", "X-Replicate-Init-Image", "input_image", "an http or https URL"),
        ("ideogram-ai/ideogram-v3-turbo", "X-Replicate-Seed", "seed", "an integer from 0 to 2147483647"),
        ("ideogram-ai/ideogram-v3-turbo", "X-Replicate-Enhance-Prompt", "magic_prompt_option", "yes or no"),
        ("xinntao/realesrgan", "X-Replicate-Upscale-Factor", "scale", "2 or 4"),
        ("google/imagen-4-ultra", "X-Replicate-Seed", None, None),
        ("google/imagen-4-ultra", "X-Replicate-Safety-Checker", "safety_filter_level", "yes or no"),
    ],
)
def test_the_models_own_name_and_range(name: str, header: str, own: str | None, takes: str | None) -> None:
    support = row(header, inputs(MODELS[name]))
    assert (support.input, support.by, support.takes) == (own, None, takes)


def test_parameters_that_the_proxy_handles() -> None:
    sdxl = inputs(MODELS["stability-ai/sdxl"])
    assert row("X-Output-Format", sdxl).by == "the proxy, which converts"
    assert row("X-Output-Quality", sdxl).by == "the proxy, where it converts"
    assert row("X-Replicate-Num-Outputs", inputs(MODELS["black-forest-labs/flux-pro"])).by == "several predictions"


def test_a_missing_count_is_replaced_by_several_predictions() -> None:
    assert row("X-Replicate-Num-Outputs", model_of(ModelInput("max_images", "string"))).by == "several predictions"


def test_support_through_settings() -> None:
    sdxl, upscaler = inputs(MODELS["stability-ai/sdxl"]), inputs(MODELS["nightmareai/real-esrgan"])
    around = ImageSupportContext(enhancer="poet", upscaler="a/b", upscaler_inputs=upscaler, allow_unsafe=False)
    assert row("X-Replicate-Enhance-Prompt", sdxl, around).by == "the app poet"
    assert row("X-Replicate-Upscale", sdxl, around).by == "the upscaler a/b"
    factor = row("X-Replicate-Upscale-Factor", sdxl, around)
    assert (factor.by, factor.takes) == ("the upscaler a/b", "2 or 4")
    safety = row("X-Replicate-Safety-Checker", sdxl, around)
    assert (safety.takes, safety.note) == ("yes", "no is rejected by this server")


def test_an_upscaler_with_one_factor_only() -> None:
    picture = ModelInput("image", "string", uri=True)
    for field in ((), (ModelInput("scale", "integer", options=(8, 16)),)):
        around = ImageSupportContext(upscaler="a/b", upscaler_inputs=model_of(picture, *field))
        factor = row("X-Replicate-Upscale-Factor", model_of(), around)
        assert (factor.by, factor.takes) == (None, None)


@pytest.mark.parametrize(
    ("header", "field", "note"),
    [
        (
            "X-Output-Format",
            ModelInput("output_format", "string", options=("png", "jpeg")),
            "webp by the proxy, which converts",
        ),
        ("X-Output-Format", ModelInput("output_format", "string"), None),
        (
            "X-Replicate-Num-Outputs",
            ModelInput("num_images", "integer", maximum=2),
            "more than 2 by several predictions",
        ),
        ("X-Replicate-Num-Outputs", ModelInput("num_images", "integer"), None),
        (
            "X-Replicate-Num-Outputs",
            ModelInput("num_images", "string", options=("1", "2")),
            "more than 2 by several predictions",
        ),
        (
            "X-Replicate-Init-Image",
            ModelInput("image_prompt", "string", uri=True),
            "a reference for this model, not an initial image",
        ),
        (
            "X-Replicate-Mask",
            ModelInput("mask", "string", uri=True),
            "this model repaints black areas: the proxy inverts masks",
        ),
    ],
)
def test_notes(header: str, field: ModelInput, note: str | None) -> None:
    support = row(header, model_of(field), ImageSupportContext(mask_repaints="black"))
    assert support.takes is not None
    assert support.note == note


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("X-Replicate-Scheduler", ModelInput("scheduler", "string", options=("UniPC",))),
        ("X-Replicate-Guidance-Scale", ModelInput("guidance", "number", minimum=50, maximum=100)),
        ("X-Replicate-Safety-Checker", ModelInput("safety_filter_level", "string", options=("strict",))),
        ("X-Replicate-Safety-Checker", ModelInput("safety_tolerance", "integer")),
        ("X-Replicate-Init-Image", ModelInput("image", "integer")),
        ("X-Replicate-Mask", ModelInput("mask", "array", uri=True)),
        ("X-Replicate-Enhance-Prompt", ModelInput("magic_prompt_option", "string", options=("Sometimes",))),
    ],
)
def test_no_common_values_is_unsupported(header: str, field: ModelInput) -> None:
    assert row(header, model_of(field)).takes is None


def test_common_values_of_an_enum_of_numbers_and_a_header() -> None:
    steps = ModelInput("steps", "integer", options=(0, 20, 30))
    assert row("X-Replicate-Num-Inference-Steps", model_of(steps)).takes == "one of 20, 30"


def test_a_model_that_sets_no_limits() -> None:
    model = model_of(ModelInput("seed", "integer"), ModelInput("cfg", "number"), ModelInput("sampler", "string"))
    assert row("X-Replicate-Seed", model).takes == "an integer from 0 up"
    assert row("X-Replicate-Guidance-Scale", model).takes == "a number from 1 to 20"
    assert (
        row("X-Replicate-Scheduler", model).takes == "one of DDIM, DPMSolverMultistep, K_EULER, K_EULER_ANCESTRAL, PNDM"
    )


def test_a_switch_without_a_factor() -> None:
    model = model_of(ModelInput("upscale", "boolean"))
    assert row("X-Replicate-Upscale", model).input == "upscale"
    assert row("X-Replicate-Upscale-Factor", model).takes is None


def test_inputs_without_a_header() -> None:
    names = [field.name for field in other_inputs(inputs(MODELS["black-forest-labs/flux-schnell"]))]
    assert names == ["aspect_ratio", "go_fast", "megapixels"]
