"""Map image parameters to the inputs of real models."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.pictures.accept import read_accept
from openai_dify_proxy.translate.replicate.counts import count_up, counts_of, number_in
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan, ImageRules, Policy
from openai_dify_proxy.translate.replicate.known_models import Colour
from openai_dify_proxy.translate.replicate.mapping import plan_images
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs
from tests.unit.translate.replicate.replicate_models import MODELS, model_of

COLOURS: tuple[Colour, ...] = ("black", "white")
PROMPT: dict[str, Any] = {"prompt": {"type": "string"}}


def plan(model: str | ModelInputs, rules: ImageRules | None = None, **parameters: Any) -> ImagePlan:
    inputs = MODELS[model] if isinstance(model, str) else model
    return plan_images(ImageParameters(**{"prompt": "A fox", **parameters}), inputs, rules or ImageRules())


def inputs_of(model: str | ModelInputs, rules: ImageRules | None = None, **parameters: Any) -> dict[str, Any]:
    """Return the inputs of the only prediction, without the prompt."""
    (inputs,) = plan(model, rules, **parameters).predictions
    assert inputs.pop("prompt", "A fox") == "A fox"
    return inputs


def refused(
    model: str | ModelInputs, rules: ImageRules | None = None, **parameters: Any
) -> tuple[str | None, str | None]:
    """Return ``param`` and ``code`` of the rejection."""
    with pytest.raises(InvalidRequest) as error:
        plan(model, rules, **parameters)
    assert error.value.status == 400
    return error.value.param, error.value.code


# Headers and the resulting inputs, in the model's spelling.
SENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sdxl", {}, {}),
    ("sdxl", {"scheduler": "PNDM", "negative_prompt": "blurry"}, {"scheduler": "PNDM", "negative_prompt": "blurry"}),
    (
        "sdxl",
        {"num_inference_steps": 500, "guidance_scale": 20.0},
        {"num_inference_steps": 500, "guidance_scale": 20.0},
    ),
    ("sdxl", {"seed": 0}, {"seed": 0}),
    ("sdxl", {"num_outputs": 1}, {"num_outputs": 1}),
    ("sdxl", {"safety_checker": False}, {"disable_safety_checker": True}),
    ("sdxl", {"safety_checker": True, "enhance_prompt": False, "upscale": False}, {}),
    ("flux-pro", {"num_inference_steps": 50, "guidance_scale": 5.0}, {"steps": 50, "guidance": 5.0}),
    ("flux-pro", {"enhance_prompt": True}, {"prompt_upsampling": True}),
    ("flux-pro", {"enhance_prompt": False}, {"prompt_upsampling": False}),
    ("flux-pro", {"safety_checker": False}, {"safety_tolerance": 6}),
    ("flux-dev", {"guidance_scale": 1.0}, {"guidance": 1.0}),
    ("ideogram-v3-turbo", {"enhance_prompt": True}, {"magic_prompt_option": "On"}),
    ("ideogram-v3-turbo", {"enhance_prompt": False}, {"magic_prompt_option": "Off"}),
    ("ideogram-v3-turbo", {"style_preset": "realistic"}, {"style_type": "Realistic"}),
    ("ideogram-v3-turbo", {"seed": 2147483647}, {"seed": 2147483647}),
    ("imagen-4-ultra", {"safety_checker": False}, {"safety_filter_level": "block_only_high"}),
    ("flux-kontext-pro", {"safety_checker": False}, {"safety_tolerance": 6}),
    ("gpt-image-1", {"output_quality": 50}, {"output_compression": 50}),
    ("flux-schnell", {"output_quality": 50, "output_format": "jpg"}, {"output_quality": 50, "output_format": "jpg"}),
    ("sdxl", {"output_quality": 50, "output_format": "webp"}, {}),
]
WITHOUT_FORMAT = {"sdxl", "stable-diffusion", "ideogram-v3-turbo", "realesrgan", "real-esrgan", "seedream-4.5"}


@pytest.mark.parametrize(("model", "headers", "inputs"), SENT)
def test_headers_that_are_sent(model: str, headers: dict[str, Any], inputs: dict[str, Any]) -> None:
    usual = {} if model in WITHOUT_FORMAT else {"output_format": "png"}
    assert inputs_of(model, headers=headers) == {**usual, **inputs}


# Headers that a model does not support, or whose value it rejects; the code says which.
REFUSED: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("flux-schnell", {"num_inference_steps": 5}, "X-Replicate-Num-Inference-Steps", None),
    ("flux-schnell", {"guidance_scale": 3.0}, "X-Replicate-Guidance-Scale", "unsupported_parameter"),
    ("flux-schnell", {"scheduler": "DDIM"}, "X-Replicate-Scheduler", "unsupported_parameter"),
    ("flux-schnell", {"negative_prompt": "x"}, "X-Replicate-Negative-Prompt", "unsupported_parameter"),
    ("flux-schnell", {"enhance_prompt": True}, "X-Replicate-Enhance-Prompt", "unsupported_parameter"),
    ("flux-schnell", {"upscale": True}, "X-Replicate-Upscale", "unsupported_parameter"),
    ("flux-schnell", {"style_preset": "anime"}, "X-Replicate-Style-Preset", "unsupported_parameter"),
    ("flux-pro", {"guidance_scale": 1.0}, "X-Replicate-Guidance-Scale", None),
    ("ideogram-v3-turbo", {"style_preset": "anime"}, "X-Replicate-Style-Preset", None),
    ("ideogram-v3-turbo", {"seed": 2147483648}, "X-Replicate-Seed", None),
    ("ideogram-v3-turbo", {"safety_checker": False}, "X-Replicate-Safety-Checker", "unsupported_parameter"),
    ("imagen-4-ultra", {"seed": 1}, "X-Replicate-Seed", "unsupported_parameter"),
    ("sdxl", {"mask": "https://m"}, "X-Replicate-Mask", None),
    ("sdxl", {"prompt_strength": 0.5}, "X-Replicate-Prompt-Strength", None),
    ("sdxl", {"upscale_factor": 2}, "X-Replicate-Upscale-Factor", None),
    ("sdxl", {"upscale_factor": 2, "upscale": False}, "X-Replicate-Upscale-Factor", None),
]


@pytest.mark.parametrize(("model", "headers", "param", "code"), REFUSED)
def test_rejected_headers(model: str, headers: dict[str, Any], param: str, code: str | None) -> None:
    assert refused(model, headers=headers) == (param, code)


def test_a_rejection_lists_the_models_inputs() -> None:
    with pytest.raises(InvalidRequest) as error:
        plan("real-esrgan", has_init=True, headers={"seed": 7})
    assert error.value.message == (
        "This model does not support X-Replicate-Seed. Its inputs are: image, scale, face_enhance."
    )


@pytest.mark.parametrize(("policy", "notices"), [("warn", ("X-Replicate-Scheduler", "input.tile")), ("drop", ())])
def test_unsupported_parameters_may_be_dropped(policy: Policy, notices: tuple[str, ...]) -> None:
    rules = ImageRules(policy=policy)
    planned = plan("flux-schnell", rules, headers={"scheduler": "DDIM", "seed": 7}, extra={"tile": 9, "go_fast": False})
    assert planned.predictions == ({"prompt": "A fox", "output_format": "png", "seed": 7, "go_fast": False},)
    assert planned.notices == notices


@pytest.mark.parametrize("policy", ["warn", "drop"])
def test_bad_values_are_rejected_under_every_policy(policy: Policy) -> None:
    assert refused("flux-schnell", ImageRules(policy=policy), headers={"num_inference_steps": 5}) == (
        "X-Replicate-Num-Inference-Steps",
        None,
    )
    dropped = ImageRules(policy=policy)
    assert not plan("flux-schnell", dropped, headers={"enhance_prompt": True, "upscale": True}).enhance
    assert not plan("flux-schnell", dropped, headers={"upscale": True}).upscale
    assert "seed" not in inputs_of("imagen-4-ultra", dropped, headers={"seed": 1})
    assert inputs_of("ideogram-v3-turbo", dropped, headers={"safety_checker": False}) == {}


# Initial pictures and masks.


@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [
        ("sdxl", "image", "string"),
        ("stable-diffusion", "init_image", "string"),
        ("flux-kontext-pro", "input_image", "string"),
        ("realesrgan", "img", "string"),
        ("seedream-4.5", "image_input", "array"),
        ("gpt-image-1", "input_images", "array"),
    ],
)
def test_the_input_for_the_initial_picture(model: str, name: str, kind: str) -> None:
    planned = plan(model, has_init=True)
    assert planned.init_input is not None
    assert (planned.init_input.name, planned.init_input.kind, planned.notices) == (
        name,
        kind,
        ("prompt",) if model == "realesrgan" else (),
    )


def test_a_reference_is_used_where_there_is_no_initial_picture() -> None:
    model = model_of(**PROMPT, image_prompt={"type": "string", "format": "uri"})
    planned = plan(model, has_init=True)
    assert planned.init_input is model.fields["image_prompt"]
    assert planned.notices == ("image_prompt is a reference for this model, not an initial image",)
    both = model_of(**PROMPT, image_prompt={}, image={"type": "boolean"}, input_image={"enum": ["a"]}, img={})
    assert plan(both, has_init=True).init_input is both.fields["img"]


def test_masks_in_the_polarity_of_the_model() -> None:
    for colour in COLOURS:
        planned = plan("sdxl", ImageRules(mask_repaints=colour), has_init=True, has_mask=True)
        assert planned.mask_input is not None
        assert (planned.mask_input.name, planned.invert_mask) == ("mask", colour == "black")
    assert not plan("sdxl", ImageRules(mask_repaints="black"), has_init=True).invert_mask


def test_inputs_that_belong_to_a_dropped_picture_are_dropped() -> None:
    model = model_of(**PROMPT, mask={"format": "uri"}, prompt_strength={"type": "number"})
    parameters: dict[str, Any] = {"has_init": True, "has_mask": True, "headers": {"prompt_strength": 0.5}}
    planned = plan(model, ImageRules(policy="warn"), **parameters)
    assert (planned.predictions, planned.mask_input) == (({"prompt": "A fox"},), None)
    assert planned.notices == ("X-Replicate-Init-Image", "X-Replicate-Mask", "X-Replicate-Prompt-Strength")
    assert plan(model, ImageRules(policy="drop"), has_init=True).notices == ()


def test_pictures_that_a_model_does_not_support() -> None:
    unsupported = "unsupported_parameter"
    assert refused("flux-schnell", has_init=True) == ("X-Replicate-Init-Image", unsupported)
    assert refused("flux-dev", has_init=True, has_mask=True) == ("X-Replicate-Mask", unsupported)
    for sent in ("image", "image[]", "images[1]"):
        assert refused("sdxl", has_init=True, more_param=sent) == (sent, unsupported)
        assert plan("sdxl", ImageRules(policy="warn"), has_init=True, more_param=sent).notices == (sent,)
    assert plan("flux-schnell", ImageRules(policy="warn"), has_init=True).notices == ("X-Replicate-Init-Image",)
    assert plan("gpt-image-1", has_init=True, more_param="image[]").notices == ()
    assert refused("sdxl", has_mask=True, mask_param="mask") == ("mask", None)
    assert refused("flux-schnell", has_init=True, init_param="image") == ("image", unsupported)
    assert refused("flux-dev", has_init=True, has_mask=True, mask_param="mask") == ("mask", unsupported)
    dropped = ImageRules(policy="warn")
    both: dict[str, Any] = {"has_init": True, "init_param": "image", "has_mask": True, "mask_param": "mask"}
    assert plan("flux-schnell", dropped, **both).notices == ("image", "mask")
    with pytest.raises(InvalidRequest, match=r"^This model does not support image\. Its inputs are: prompt, "):
        plan("flux-schnell", has_init=True, init_param="image")


def test_strength_with_a_picture() -> None:
    assert inputs_of("sdxl", has_init=True, headers={"prompt_strength": 1.0}) == {"prompt_strength": 1.0}
    strength = model_of(**PROMPT, image={}, strength={"type": "number"}, image_prompt_strength={"type": "number"})
    assert inputs_of(strength, has_init=True, headers={"prompt_strength": 0.0}) == {"strength": 0.0}
    other = model_of(**PROMPT, image={}, image_prompt_strength={"type": "number"})
    assert refused(other, has_init=True, headers={"prompt_strength": 0.5})[0] == "X-Replicate-Prompt-Strength"


def test_missing_required_inputs() -> None:
    missing = "missing_required_parameter"
    assert refused("flux-schnell", prompt=None) == ("prompt", missing)
    assert refused("real-esrgan") == ("image", missing)
    with pytest.raises(InvalidRequest, match=r"Send the field image, or X-Replicate-Init-Image\.$"):
        plan("real-esrgan")
    pictures = model_of(image={}, mask_image={"required": True}, input_image={"required": True})
    assert refused(pictures, has_init=True) == ("mask", missing)
    assert refused(pictures, has_init=True, has_mask=True) == ("input.input_image", missing)
    assert refused(model_of(tile={"required": True, "type": "integer"})) == ("input.tile", missing)
    assert refused(model_of(text={"required": True, "type": "string"}), prompt=None) == ("prompt", missing)
    assert inputs_of(model_of(**PROMPT, tile={"required": True, "default": 7})) == {}
    assert plan("sdxl", prompt=None, has_init=True).predictions == ({},)


def test_prompts() -> None:
    assert plan("sdxl").prompt_input == "prompt"
    assert plan(model_of(text={})).predictions == ({"text": "A fox"},)
    assert plan(model_of(tile={})).notices == ("prompt",)
    assert refused(model_of(prompt={"type": "integer"})) == ("prompt", None)


# Safety.


def test_safety_with_a_picture_as_far_as_the_model_allows() -> None:
    assert inputs_of("flux-kontext-pro", has_init=True, headers={"safety_checker": False})["safety_tolerance"] == 2
    assert inputs_of("flux-pro", headers={"safety_checker": False})["safety_tolerance"] == 6
    bare = model_of(**PROMPT, safety_tolerance={"type": "integer"})
    assert refused(bare, headers={"safety_checker": False}) == ("X-Replicate-Safety-Checker", None)


STRICT = ImageRules(allow_unsafe=False)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("sdxl", "disable_safety_checker", True),
        ("flux-pro", "safety_tolerance", 6),
        ("gpt-image-1", "moderation", "low"),
    ],
)
def test_a_strict_server_lets_no_request_loosen_anything(model: str, name: str, value: Any) -> None:
    assert inputs_of(model, extra={name: value})[name] == value
    assert refused(model, STRICT, extra={name: value}) == (f"input.{name}", None)
    assert refused(model, STRICT, headers={"safety_checker": False}) == ("X-Replicate-Safety-Checker", None)
    assert plan(model, STRICT, headers={"safety_checker": True}).notices == ()
    assert inputs_of("sdxl", STRICT, extra={"disable_safety_checker": False}) == {"disable_safety_checker": False}
    operators = ImageRules(allow_unsafe=False, defaults={name: value})
    assert inputs_of(model, operators)[name] == value


LEVELS = ["block_low_and_above", "block_medium_and_above", "block_only_high"]
COMPARED: list[tuple[dict[str, Any], Any, bool]] = [
    ({"name": "safety_tolerance", "type": "integer", "default": 2}, 1, True),
    ({"name": "safety_tolerance", "type": "integer", "default": 2}, 2, True),
    ({"name": "safety_tolerance", "type": "integer", "default": 2}, 3, False),
    ({"name": "safety_tolerance", "type": "integer"}, 1, False),
    ({"name": "safety_tolerance", "type": "string", "default": "x"}, "y", False),
    ({"name": "safety_filter_level", "enum": LEVELS, "default": LEVELS[1]}, LEVELS[0], True),
    ({"name": "safety_filter_level", "enum": LEVELS, "default": LEVELS[1]}, LEVELS[2], False),
    ({"name": "safety_filter_level", "enum": ["off"]}, "off", False),
    ({"name": "enable_safety_checker", "type": "boolean", "default": True}, False, False),
    ({"name": "enable_safety_checker", "type": "boolean"}, True, True),
    ({"name": "disable_safety_checker", "type": "boolean"}, False, True),
    ({"name": "moderation", "enum": ["auto", "low"], "default": "low"}, "auto", True),
]


@pytest.mark.parametrize(("body", "value", "passes"), COMPARED)
def test_a_strict_server_lets_requests_be_stricter(body: dict[str, Any], value: Any, passes: bool) -> None:
    name = body["name"]
    model = model_of(**PROMPT, **{name: body})
    if passes:
        assert inputs_of(model, STRICT, extra={name: value}) == {name: value}
    else:
        assert refused(model, STRICT, extra={name: value}) == (f"input.{name}", None)


@pytest.mark.parametrize(
    ("body", "usual", "sent"),
    [
        ({"name": "disable_safety_checker", "type": "boolean"}, True, {"disable_safety_checker": False}),
        ({"name": "enable_safety_checker", "type": "boolean"}, False, {"enable_safety_checker": True}),
        ({"name": "safety_tolerance", "type": "integer", "default": 2}, 6, {}),
        ({"name": "safety_tolerance", "type": "integer", "default": 2}, 1, {"safety_tolerance": 1}),
        ({"name": "safety_filter_level", "enum": LEVELS, "default": LEVELS[0]}, LEVELS[2], {}),
    ],
)
def test_yes_reverts_what_an_alias_loosens(body: dict[str, Any], usual: Any, sent: dict[str, Any]) -> None:
    model = model_of(**PROMPT, **{body["name"]: body})
    rules = ImageRules(defaults={body["name"]: usual})
    assert inputs_of(model, rules) == {body["name"]: usual}
    assert inputs_of(model, rules, headers={"safety_checker": True}) == sent


# Enhancing and upscaling.


def test_enhancing_by_an_app_where_the_model_cannot() -> None:
    rules = ImageRules(can_enhance=True)
    assert plan("sdxl", rules, headers={"enhance_prompt": True}).enhance
    assert not plan("sdxl", rules, headers={"enhance_prompt": False}).enhance
    assert not plan("sdxl", rules).enhance
    assert not plan("flux-pro", rules, headers={"enhance_prompt": True}).enhance
    assert refused(model_of(**PROMPT, enhance_prompt={"type": "integer"}), headers={"enhance_prompt": True}) == (
        "X-Replicate-Enhance-Prompt",
        None,
    )


UPSCALERS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "a switch and a factor": (
        {"upscale": {"type": "boolean"}, "upscale_factor": {"type": "integer"}},
        {"upscale": True, "upscale_factor": 4},
        {"upscale": True, "upscale_factor": 4},
    ),
    "a switch alone": ({"upscale": {"type": "boolean"}}, {"upscale": True}, {"upscale": True}),
    "a factor alone": (
        {"scale": {"type": "number", "default": 2, "description": "Rescaling factor"}},
        {"upscale": True, "upscale_factor": 2},
        {"scale": 2},
    ),
    "a factor that is set": ({"upscale_factor": {"type": "number", "default": 4}}, {"upscale": True}, {}),
    "no factor": ({"upscale_factor": {"type": "number"}}, {"upscale": True}, {"upscale_factor": 2}),
    "a factor of one": (
        {"scale": {"type": "integer", "default": 1, "description": "Factor to upscale by"}},
        {"upscale": True},
        {"scale": 2},
    ),
}


@pytest.mark.parametrize("case", UPSCALERS)
def test_upscaling_by_the_model_itself(case: str) -> None:
    properties, headers, inputs = UPSCALERS[case]
    planned = plan(model_of(**PROMPT, **properties), ImageRules(can_upscale=True), headers=headers)
    assert planned.predictions == ({"prompt": "A fox", **inputs},)
    assert not planned.upscale


def test_unsupported_upscaling() -> None:
    both = {"upscale": True, "upscale_factor": 4}
    switch = model_of(**PROMPT, upscale={"type": "boolean"})
    assert refused(switch, headers=both) == ("X-Replicate-Upscale-Factor", "unsupported_parameter")
    low = model_of(**PROMPT, scale={"type": "integer", "maximum": 2, "description": "Scale factor"})
    assert refused(low, headers=both) == ("X-Replicate-Upscale-Factor", None)
    named = model_of(**PROMPT, upscale={"enum": ["2x", "4x"]})
    assert refused(named, headers={"upscale": True}) == ("X-Replicate-Upscale", None)


def test_errors_name_the_setting_that_enables_an_input() -> None:
    for parameter, setting in (("enhance_prompt", "ENHANCE_PROMPT_APP"), ("upscale", "IMAGE_UPSCALER")):
        with pytest.raises(InvalidRequest, match=f"The operator of this server can set {setting} to a "):
            plan("sdxl", headers={parameter: True})


def test_invalid_sizes() -> None:
    for policy in ("reject", "warn", "drop"):
        assert refused("sdxl", ImageRules(policy=policy), body={"size": "huge"}) == ("size", None)


def test_upscaling_by_a_second_prediction() -> None:
    rules = ImageRules(can_upscale=True)
    planned = plan("sdxl", rules, headers={"upscale": True, "upscale_factor": 4})
    assert (planned.upscale, planned.upscale_factor, planned.predictions) == (True, 4, ({"prompt": "A fox"},))
    assert plan("sdxl", rules, headers={"upscale": True}).upscale_factor is None
    assert not plan("sdxl", rules).upscale


# OpenAI's body.

BODIES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    (
        "gpt-image-1",
        {"quality": "high", "background": "transparent", "user": "u1"},
        {"quality": "high", "background": "transparent", "user_id": "u1"},
        (),
    ),
    ("gpt-image-1", {"quality": "hd", "style": "vivid"}, {}, ("quality", "style")),
    ("sdxl", {"quality": "high", "background": "opaque", "user": "u1"}, {}, ("quality", "background", "user")),
    ("sdxl", {"seed": 7, "size": "512x512"}, {"seed": 7, "width": 512, "height": 512}, ()),
    ("sdxl", {"size": "1000x700"}, {"width": 1000, "height": 704}, ("size",)),
    ("sdxl", {"size": "auto"}, {}, ()),
    ("flux-schnell", {"size": "1000x700"}, {"aspect_ratio": "3:2"}, ("size",)),
    ("flux-schnell", {"size": "1024x1024"}, {"aspect_ratio": "1:1"}, ()),
    ("realesrgan", {"size": "512x512", "seed": 7}, {}, ("prompt", "seed", "size")),
    ("ideogram-v3-turbo", {"seed": 2147483648}, {}, ("seed",)),
    ("sdxl", {"output_compression": 101}, {}, ("output_compression",)),
    ("sdxl", {"output_compression": 30}, {}, ()),
    (
        "flux-schnell",
        {"output_compression": 30, "output_format": "jpeg"},
        {"output_quality": 30, "output_format": "jpg"},
        (),
    ),
    ("gpt-image-1", {"output_format": "jpeg"}, {"output_format": "jpeg"}, ()),
    ("flux-schnell", {"output_format": "gif"}, {}, ("output_format",)),
]


@pytest.mark.parametrize(("model", "body", "inputs", "notices"), BODIES)
def test_fields_of_openais_body(
    model: str, body: dict[str, Any], inputs: dict[str, Any], notices: tuple[str, ...]
) -> None:
    planned = plan(model, body=body, has_init=model == "realesrgan")
    usual = {"output_format": "png"} if model not in WITHOUT_FORMAT else {}
    prompt = {"prompt": "A fox"} if model != "realesrgan" else {}
    assert planned.predictions == ({**prompt, **usual, **inputs},)
    assert planned.notices == notices


def test_a_header_and_the_body_with_the_same_values() -> None:
    headers = {"seed": 1, "output_format": "jpg", "output_quality": 10, "num_outputs": 2}
    body = {"seed": 1, "output_format": "jpeg", "output_compression": 10}
    planned = plan("flux-schnell", headers=headers, body=body, n=2)
    assert planned.predictions == (
        {"prompt": "A fox", "seed": 1, "output_format": "jpg", "output_quality": 10, "num_outputs": 2},
    )
    assert (planned.n, planned.quality, planned.notices) == (2, 10, ())
    styled = model_of(**PROMPT, style={"type": "string"})
    assert inputs_of(styled, headers={"style_preset": "anime"}, body={"style": "anime"}) == {"style": "anime"}
    assert inputs_of(styled, body={"style": "vivid"}) == {"style": "vivid"}
    listed = model_of(**PROMPT, style={"enum": ["anime", "photo"]})
    assert plan(listed, headers={"style_preset": "anime"}, body={"style": "vivid"}).notices == ("style",)


COUNT = "X-Replicate-Num-Outputs"
CONFLICTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"num_outputs": 2}, {"n": 3}, "X-Replicate-Num-Outputs is '2', but n is '3'."),
    ({"seed": 1}, {"body": {"seed": 2}}, "X-Replicate-Seed is '1', but seed is '2'."),
    (
        {"output_format": "png"},
        {"body": {"output_format": "jpeg"}},
        "X-Output-Format is 'png', but output_format is 'jpeg'.",
    ),
    (
        {"output_format": "png"},
        {"body": {"output_format": "gif"}},
        "X-Output-Format is 'png', but output_format is 'gif'.",
    ),
    (
        {"output_quality": 10},
        {"body": {"output_compression": 20}},
        "X-Output-Quality is '10', but output_compression is '20'.",
    ),
    (
        {"style_preset": "anime"},
        {"body": {"style": "v" * 60}},
        f"X-Replicate-Style-Preset is 'anime', but style is '{'v' * 50}…'.",
    ),
    ({"seed": 1}, {"extra": {"seed": 2}}, "X-Replicate-Seed is '1', but input.seed is '2'."),
    (
        {"num_outputs": 2},
        {"extra": {"num_outputs": 3}},
        "X-Replicate-Num-Outputs is '2', but input.num_outputs is '3'.",
    ),
    (
        {"output_format": "png"},
        {"extra": {"output_format": "webp"}},
        "X-Output-Format is 'png', but input.output_format is 'webp'.",
    ),
    (
        {"safety_checker": True},
        {"extra": {"disable_safety_checker": True}},
        "X-Replicate-Safety-Checker is 'yes', but input.disable_safety_checker is 'True'.",
    ),
    (
        {"safety_checker": False},
        {"extra": {"disable_safety_checker": False}},
        "X-Replicate-Safety-Checker is 'no', but input.disable_safety_checker is 'False'.",
    ),
]
CONFLICTING = model_of(
    **PROMPT,
    style={"type": "string"},
    seed={"type": "integer"},
    num_outputs={"type": "integer"},
    output_format={"enum": ["png", "webp", "jpg"]},
    output_quality={"type": "integer"},
    disable_safety_checker={"type": "boolean"},
)


@pytest.mark.parametrize("policy", ["reject", "warn", "drop"])
@pytest.mark.parametrize(("headers", "rest", "message"), CONFLICTS)
def test_headers_and_bodies_that_disagree(
    headers: dict[str, Any], rest: dict[str, Any], message: str, policy: Policy
) -> None:
    with pytest.raises(InvalidRequest) as error:
        plan(CONFLICTING, ImageRules(policy=policy), headers=headers, **rest)
    assert error.value.message == f"{message} Send one of them, or the same value in both."
    assert error.value.param == message.partition(" ")[0]


def test_headers_and_inputs_that_agree() -> None:
    headers = {"seed": 1, "num_outputs": 2, "output_format": "jpg", "safety_checker": True}
    extra = {"seed": 1, "num_outputs": 2, "output_format": "jpg", "disable_safety_checker": False}
    assert inputs_of(CONFLICTING, headers=headers, extra=extra) == extra


# Headers that do not exist.


UNKNOWN: list[tuple[str, str, str]] = [
    ("X-Replicate-Sede", "sdxl", "Did you mean X-Replicate-Seed?"),
    ("X-Replicate-Output-Format", "sdxl", "Did you mean X-Output-Format?"),
    ("X-Output-Fromat", "sdxl", "Did you mean X-Output-Format?"),
    ("X-Replicate-Steps", "sdxl", "Did you mean X-Replicate-Num-Inference-Steps?"),
    ("X-Replicate-Image", "flux-kontext-pro", "Did you mean X-Replicate-Init-Image?"),
    ("X-Replicate-Prompt", "sdxl", 'Send "prompt" in the body.'),
    (
        "X-Replicate-Width",
        "sdxl",
        'This model\'s input is \'width\': send "size" or "input": {"width": …} in the body.',
    ),
    (
        "X-Replicate-Width",
        "flux-schnell",
        'This model\'s input is \'aspect_ratio\': send "size" or "input": {"aspect_ratio": …} in the body.',
    ),
    ("X-Replicate-Size", "realesrgan", "This model has no input for sizes. Omit the header."),
    ("X-Replicate-Refine", "sdxl", 'It is an input of this model: send "input": {"refine": …} in the body.'),
    (
        "X-Replicate-Go-Fats",
        "flux-schnell",
        'Did you mean this model\'s input \'go_fast\'? Send "input": {"go_fast": …} in the body.',
    ),
    (
        "X-Replicate-Zzz",
        "real-esrgan",
        'Send inputs of the model as "input" in the body. This model has: image, scale, face_enhance.',
    ),
]


@pytest.mark.parametrize(("header", "model", "hint"), UNKNOWN)
def test_headers_that_do_not_exist(header: str, model: str, hint: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        plan(model, has_init=True, unknown=(header,))
    assert error.value.message == f"There is no header {header}. {hint}"
    assert (error.value.param, error.value.code) == (header, "unsupported_parameter")


@pytest.mark.parametrize(("policy", "notices"), [("warn", ("X-Replicate-Sede",)), ("drop", ())])
def test_headers_that_do_not_exist_may_be_dropped(policy: Policy, notices: tuple[str, ...]) -> None:
    planned = plan("sdxl", ImageRules(policy=policy), unknown=("X-Replicate-Sede",))
    assert (planned.predictions, planned.notices) == (({"prompt": "A fox"},), notices)


def test_unsupported_body_fields_are_not_rejected() -> None:
    model = model_of(**PROMPT, output_quality={"type": "integer", "minimum": 10})
    assert refused(model, headers={"output_quality": 0}) == ("X-Output-Quality", None)
    planned = plan(model, body={"output_compression": 0})
    assert (planned.predictions, planned.quality, planned.notices) == (
        ({"prompt": "A fox"},),
        0,
        ("output_compression",),
    )


def test_explicit_inputs_take_precedence() -> None:
    extra = {"seed": 9, "width": 640, "refine": "BASE_IMAGE_REFINER", "prompt": "An owl", "num_outputs": 3}
    planned = plan("sdxl", n=1, body={"size": "64x64", "seed": 1}, extra=extra)
    assert planned.predictions == (
        {
            "prompt": "An owl",
            "seed": 9,
            "width": 640,
            "height": 64,
            "refine": "base_image_refiner",
            "num_outputs": 3,
        },
    )
    assert planned.n == 3
    assert refused("sdxl", extra={"tile": 1}) == ("input.tile", "unsupported_parameter")
    assert refused("sdxl", extra={"width": "wide"}) == ("input.width", None)


def test_requests_override_the_inputs_of_an_alias() -> None:
    rules = ImageRules(defaults={"num_inference_steps": 20, "refine": "no_refiner", "tile": 7, "num_outputs": 4})
    planned = plan("sdxl", rules, headers={"num_inference_steps": 30})
    assert planned.predictions == (
        {"prompt": "A fox", "num_inference_steps": 30, "refine": "no_refiner", "num_outputs": 4},
    )
    assert (planned.n, planned.notices) == (4, ("input.tile",))
    assert plan("sdxl", rules, n=1).predictions[0]["num_outputs"] == 1


# Formats.

FORMATS: list[tuple[str, str | None, dict[str, Any], str, bool]] = [
    ("sdxl", None, {}, "png", True),
    ("sdxl", "jpg", {}, "jpg", True),
    ("flux-schnell", None, {"output_format": "png"}, "png", False),
    ("flux-schnell", "webp", {"output_format": "webp"}, "webp", False),
    ("gpt-image-1", "jpg", {"output_format": "jpeg"}, "jpg", False),
    ("flux-kontext-pro", "jpg", {"output_format": "jpg"}, "jpg", False),
    ("flux-kontext-pro", "webp", {"output_format": "png"}, "webp", True),
]


@pytest.mark.parametrize(("model", "requested", "inputs", "answered", "convert"), FORMATS)
def test_formats(model: str, requested: str | None, inputs: dict[str, Any], answered: str, convert: bool) -> None:
    planned = plan(model, headers={} if requested is None else {"output_format": requested})
    assert planned.predictions == ({"prompt": "A fox", **inputs},)
    assert (planned.output_format, planned.convert) == (answered, convert)


def test_an_alias_may_have_another_format() -> None:
    rules = ImageRules(defaults={"output_format": "webp"})
    assert plan("flux-schnell", rules).output_format == "webp"
    assert inputs_of("flux-schnell", rules) == {"output_format": "webp"}
    assert inputs_of("flux-schnell", rules, body={"output_format": "png"}) == {"output_format": "png"}
    assert inputs_of("flux-schnell", rules, headers={"output_format": "jpg"}) == {"output_format": "jpg"}


ACCEPTED: list[tuple[str, str, dict[str, Any], dict[str, Any], str, tuple[str, ...]]] = [
    ("sdxl", "image/webp", {}, {}, "webp", ()),
    ("flux-schnell", "image/webp", {}, {"output_format": "webp"}, "webp", ()),
    ("gpt-image-1", "image/jpeg", {}, {"output_format": "jpeg"}, "jpg", ()),
    ("flux-kontext-pro", "image/webp", {}, {"output_format": "png"}, "webp", ()),
    ("flux-schnell", "image/*", {"headers": {"output_format": "webp"}}, {"output_format": "webp"}, "webp", ()),
    (
        "flux-schnell",
        "image/png",
        {"headers": {"output_format": "webp"}},
        {"output_format": "png"},
        "png",
        ("X-Output-Format",),
    ),
    (
        "flux-schnell",
        "image/png",
        {"body": {"output_format": "webp"}},
        {"output_format": "png"},
        "png",
        ("output_format",),
    ),
    (
        "flux-schnell",
        "image/png",
        {"extra": {"output_format": "webp"}},
        {"output_format": "webp"},
        "png",
        ("input.output_format",),
    ),
]


@pytest.mark.parametrize("case", range(len(ACCEPTED)))
def test_formats_that_the_client_accepts(case: int) -> None:
    model, accept, parameters, inputs, answered, notices = ACCEPTED[case]
    planned = plan(model, accepted=read_accept(accept), **parameters)
    assert planned.predictions == ({"prompt": "A fox", **inputs},)
    assert (planned.output_format, planned.notices) == (answered, notices)


def test_formats_of_unusual_models() -> None:
    free = model_of(**PROMPT, output_format={"type": "string"})
    assert inputs_of(free, headers={"output_format": "jpg"}) == {"output_format": "jpg"}
    avif = model_of(**PROMPT, output_format={"enum": ["avif", "tiff"]})
    assert inputs_of(avif) == {}
    number = model_of(**PROMPT, output_format={"type": "integer"})
    assert inputs_of(number) == {}
    planned = plan("flux-schnell", body={"output_format": "png"}, extra={"output_format": "WEBP"})
    assert (planned.predictions[0]["output_format"], planned.output_format) == ("webp", "webp")


# The number of pictures.

COUNTS: list[tuple[str, int, list[int | None]]] = [
    ("sdxl", 1, [None]),
    ("sdxl", 4, [4]),
    ("sdxl", 10, [4, 4, 2]),
    ("sdxl", 5, [4, 1]),
    ("stable-diffusion", 10, [10]),
    ("flux-pro", 3, [None, None, None]),
    ("gpt-image-1", 10, [10]),
]


@pytest.mark.parametrize(("model", "n", "counts"), COUNTS)
def test_the_number_of_predictions(model: str, n: int, counts: list[int | None]) -> None:
    planned = plan(model, n=n, headers={"seed": 100} if model != "gpt-image-1" else {})
    requested = [inputs.get("num_outputs", inputs.get("number_of_images")) for inputs in planned.predictions]
    assert (requested, planned.n) == (counts, n)
    if model != "gpt-image-1":
        begins = [100 + sum(count or 1 for count in counts[:number]) for number in range(len(counts))]
        assert [inputs["seed"] for inputs in planned.predictions] == begins


def test_groups_of_pictures() -> None:
    three = inputs_of("seedream-4.5", n=3)
    assert three == {"max_images": 3, "sequential_image_generation": "auto"}
    assert inputs_of("seedream-4.5") == {}
    inputs = inputs_of("seedream-4.5", n=2, extra={"sequential_image_generation": "disabled"})
    assert inputs == {"max_images": 2, "sequential_image_generation": "disabled"}


OLD = model_of(**PROMPT, num_outputs={"enum": [1, 4]}, seed={"type": "integer", "minimum": 1, "maximum": 5})


def test_counts_in_an_enum_and_seeds_in_a_range() -> None:
    planned = plan(OLD, n=6, headers={"seed": 4})
    assert planned.predictions == (
        {"prompt": "A fox", "seed": 4, "num_outputs": 4},
        {"prompt": "A fox", "seed": 3, "num_outputs": 4},
    )
    assert plan(OLD, n=2).predictions == ({"prompt": "A fox", "num_outputs": 4},)
    usual = model_of(**PROMPT, num_outputs={"type": "integer", "default": 4})
    assert inputs_of(usual) == {"num_outputs": 1}
    texts = model_of(**PROMPT, num_outputs={"type": "string"})
    assert refused(texts, n=2, extra={"num_outputs": "a few"}) == ("input.num_outputs", None)
    assert plan(texts, n=2, extra={"num_outputs": "3"}).n == 3


@pytest.mark.parametrize("count", [0, -1, 11])
def test_explicit_counts_are_the_number_of_pictures(count: int) -> None:
    unbounded = model_of(**PROMPT, num_outputs={"type": "number"})
    assert refused(unbounded, extra={"num_outputs": count}) == ("input.num_outputs", None)
    assert refused(unbounded, extra={"num_outputs": 2.5}) == ("input.num_outputs", None)
    assert plan(unbounded, extra={"num_outputs": 2.0}).n == 2
    group = inputs_of("seedream-4.5", extra={"max_images": 3})
    assert group == {"max_images": 3, "sequential_image_generation": "auto"}


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 4}, [1, 2, 3, 4]),
        ({"type": "integer", "minimum": 0, "maximum": 15}, list(range(1, 11))),
        ({"type": "number", "minimum": 1.5, "maximum": 3.5}, [2, 3]),
        ({"type": "integer"}, list(range(1, 11))),
        ({"type": "integer", "maximum": 0}, []),
        ({"type": "boolean"}, []),
        ({"enum": ["4", "1", "many", 0, 50]}, [1, 4]),
    ],
)
def test_counts_per_prediction(body: dict[str, Any], counts: list[int]) -> None:
    assert counts_of(model_of(a=body).fields["a"]) == counts


def test_numbers_in_values() -> None:
    assert [number_in(value) for value in (3, "12", 0, "three", None, 2.5, -1, "٣")] == [3, 12, 0, *[None] * 5]


@pytest.mark.parametrize(
    ("seed", "by", "field", "next_seed"),
    [
        (7, 4, {}, 11),
        (7, 4, {"maximum": 10}, 0),
        (-5, 2, {"maximum": 10}, -5),
        (-1, 1, {"minimum": -1}, -1),
        (10, 1, {"minimum": 3, "maximum": 10}, 3),
        (2**63 - 1, 1, {}, 0),
        (8, 1, {"multiple_of": 4}, 8),
        (7.5, 1, {"kind": "number"}, 8.5),
        (True, 1, {"kind": "boolean"}, True),
        ("x", 1, {"kind": "string"}, "x"),
        (7, 1, {"options": (7, 9)}, 7),
    ],
)
def test_next_seeds(seed: Any, by: int, field: dict[str, Any], next_seed: Any) -> None:
    assert count_up(seed, by, ModelInput(**{"name": "seed", "kind": "integer", **field})) == next_seed
