"""The pictures of the scripted Replicate."""

from __future__ import annotations

import json
import struct

import pytest
from PIL import Image, ImageChops, ImageStat

from demo.tests.replicate_caller import ReplicateCaller, data_uri, opened
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoModel

SCHNELL = "black-forest-labs/flux-schnell"
SDXL = "stability-ai/sdxl"
OLD = "stability-ai/stable-diffusion"
PRO = "black-forest-labs/flux-pro"
KONTEXT = "black-forest-labs/flux-kontext-pro"
IDEOGRAM = "ideogram-ai/ideogram-v3-turbo"
SEEDREAM = "bytedance/seedream-4.5"
GPT = "openai/gpt-image-1"
GREEN = Image.new("RGB", (256, 128), (0, 255, 0))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures, from 0 to 255."""
    means = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(means) / len(means)


def half_mask(left: str, right: str) -> str:
    mask = Image.new("L", GREEN.size, left)
    mask.paste(right, (GREEN.width // 2, 0, GREEN.width, GREEN.height))
    return data_uri(mask)


def halves(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    middle = picture.width // 2
    return picture.crop((0, 0, middle, picture.height)), picture.crop((middle, 0, picture.width, picture.height))


@pytest.mark.parametrize("model", [model for model in DEMO_MODELS if model.param("prompt")], ids=lambda it: it.name)
def test_every_model_makes_a_picture(replicate: ReplicateCaller, model: DemoModel) -> None:
    picture = replicate.picture(model.name, prompt="A lighthouse on a stormy coast")
    assert picture.format in ("PNG", "JPEG", "WEBP")
    assert min(picture.size) >= 512
    assert max(ImageStat.Stat(picture.convert("RGB")).stddev) > 20, "it is not one flat colour"


def test_picture_depends_only_on_prompt_and_seed(replicate: ReplicateCaller) -> None:
    first, again = (replicate.bytes_of(SCHNELL, prompt="a fox", seed=5)[0] for _ in range(2))
    assert first == again
    other_seed = opened(replicate.bytes_of(SCHNELL, prompt="a fox", seed=6)[0])
    other_prompt = opened(replicate.bytes_of(SCHNELL, prompt="a hare", seed=5)[0])
    assert difference(opened(first), other_seed) > 5
    assert difference(opened(first), other_prompt) > 5
    two = replicate.bytes_of(SCHNELL, prompt="a fox", seed=5, num_outputs=2)
    assert two[0] == first
    assert two[1] != first
    unseeded = [replicate.bytes_of(SCHNELL, prompt="a fox")[0] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


@pytest.mark.parametrize(
    ("model", "output_format", "kind", "name"),
    [
        (SCHNELL, None, "WEBP", ".webp"),
        (SCHNELL, "png", "PNG", ".png"),
        (SCHNELL, "jpg", "JPEG", ".jpg"),
        (KONTEXT, None, "PNG", ".png"),
        (KONTEXT, "jpg", "JPEG", ".jpg"),
        ("google/imagen-4-ultra", None, "JPEG", ".jpg"),
        (GPT, "jpeg", "JPEG", ".jpeg"),
    ],
)
def test_outputs_have_the_requested_format(
    replicate: ReplicateCaller, model: str, output_format: str | None, kind: str, name: str
) -> None:
    options = {"output_format": output_format} if output_format else {}
    output = replicate.run(model, prompt="a fox", **options)["output"]
    uri = output if isinstance(output, str) else output[0]
    answer = replicate.http.get(uri)
    assert uri.endswith(name)
    assert opened(answer.content).format == kind
    assert answer.headers["content-type"] == Image.MIME[kind]


def test_lower_quality_makes_smaller_files(replicate: ReplicateCaller) -> None:
    sizes = [
        len(replicate.bytes_of(SCHNELL, prompt="a fox", seed=1, output_format="jpg", output_quality=quality)[0])
        for quality in (5, 95)
    ]
    assert sizes[0] * 2 < sizes[1]


@pytest.mark.parametrize(
    ("model", "inputs", "size"),
    [
        (SDXL, {"width": 640, "height": 384}, (640, 384)),
        (SDXL, {}, (1024, 1024)),
        (OLD, {"width": 768, "height": 512}, (768, 512)),
        (OLD, {}, (512, 512)),
        (SCHNELL, {"aspect_ratio": "16:9"}, (1344, 768)),
        (SCHNELL, {"aspect_ratio": "9:16", "megapixels": "0.25"}, (384, 672)),
        (PRO, {"aspect_ratio": "custom", "width": 1000, "height": 512}, (992, 512)),
        (PRO, {"width": 512, "height": 512}, (1024, 1024)),
        (IDEOGRAM, {"resolution": "1536x512", "aspect_ratio": "1:3"}, (1536, 512)),
        (IDEOGRAM, {"aspect_ratio": "1:3"}, (576, 1760)),
        (SEEDREAM, {"size": "custom", "width": 1024, "height": 1536}, (1024, 1536)),
        ("google/imagen-4-ultra", {"image_size": "2K", "aspect_ratio": "1:1"}, (2048, 2048)),
    ],
)
def test_sizes_follow_the_rules_of_each_model(
    replicate: ReplicateCaller, model: str, inputs: dict[str, object], size: tuple[int, int]
) -> None:
    assert replicate.picture(model, prompt="a fox", **inputs).size == size


@pytest.mark.parametrize(
    ("model", "inputs", "size"),
    [
        (SDXL, {"width": 6000, "height": 6000}, (2048, 2048)),
        (SDXL, {"width": 4096, "height": 128}, (2048, 64)),
        (SEEDREAM, {"size": "4K", "aspect_ratio": "1:1"}, (2048, 2048)),
        (SEEDREAM, {"size": "custom", "width": 1024, "height": 4096}, (512, 2048)),
        ("google/imagen-4-ultra", {"image_size": "2K", "aspect_ratio": "4:3"}, (2048, 1593)),
    ],
)
def test_larger_pictures_are_scaled_to_2048_pixels_per_side(
    replicate: ReplicateCaller, model: str, inputs: dict[str, object], size: tuple[int, int]
) -> None:
    assert replicate.picture(model, prompt="a fox", **inputs).size == size


def test_upscaled_picture_has_at_most_2048_pixels_per_side(replicate: ReplicateCaller) -> None:
    assert replicate.picture("nightmareai/real-esrgan", image=data_uri(GREEN), scale=10).size == (2048, 1024)


def test_pictures_beyond_a_models_memory_fail(replicate: ReplicateCaller) -> None:
    failed = replicate.run(SDXL, prompt="a fox", width=12000, height=12000)
    assert (failed["status"], failed["error"][:18]) == ("failed", "CUDA out of memory")


def test_initial_image_is_blended_in(replicate: ReplicateCaller) -> None:
    green = data_uri(GREEN)
    unchanged = replicate.picture(SDXL, prompt="a fox", image=green, prompt_strength=0)
    assert (unchanged.size, difference(unchanged, GREEN)) == (GREEN.size, 0)
    replaced = replicate.picture(SDXL, prompt="a fox", image=green, prompt_strength=1, seed=1)
    mixed = replicate.picture(SDXL, prompt="a fox", image=green, prompt_strength=0.5, seed=1)
    assert 0 < difference(mixed, GREEN) < difference(replaced, GREEN)
    resized = replicate.picture(OLD, prompt="a fox", init_image=green, prompt_strength=0, width=128, height=128)
    assert resized.size == (128, 128)
    assert resized.convert("RGB").getpixel((64, 64)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("model", "name"), [(KONTEXT, "input_image"), (SEEDREAM, "image_input"), (GPT, "input_images")]
)
def test_references_change_the_picture(replicate: ReplicateCaller, model: str, name: str) -> None:
    green = data_uri(GREEN)
    value = green if name == "input_image" else [green]
    plain = replicate.picture(model, prompt="a fox", aspect_ratio="1:1")
    referred = replicate.picture(model, prompt="a fox", aspect_ratio="1:1", **{name: value})
    assert difference(plain, referred) > 10


def test_aspect_ratio_of_an_input_can_be_matched(replicate: ReplicateCaller) -> None:
    wide = replicate.picture(KONTEXT, prompt="a fox", input_image=data_uri(GREEN))
    assert wide.width / wide.height == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("model", "name", "repaints", "more"),
    [
        (SDXL, "image", "white", {"prompt_strength": 1}),
        (OLD, "init_image", "black", {"prompt_strength": 1, "width": 256, "height": 128}),
        (IDEOGRAM, "image", "black", {}),
    ],
)
def test_mask_protects_the_unmasked_area(
    replicate: ReplicateCaller, model: str, name: str, repaints: str, more: dict[str, object]
) -> None:
    keeps = "black" if repaints == "white" else "white"
    inputs = {name: data_uri(GREEN), "mask": half_mask(repaints, keeps), **more}
    picture = replicate.picture(model, prompt="a fox", seed=3, **inputs)
    left, right = halves(picture)
    green = GREEN.resize(left.size)
    assert difference(left, green) > 30
    assert difference(right, green) == 0


def test_input_combinations_that_models_reject(replicate: ReplicateCaller) -> None:
    mask = half_mask("white", "black")
    alone = replicate.run(OLD, prompt="a fox", mask=mask)
    assert (alone["status"], alone["error"]) == ("failed", "mask was provided without init_image")
    assert replicate.run(IDEOGRAM, prompt="a fox", image=data_uri(GREEN))["status"] == "failed"
    large = replicate.run(OLD, prompt="a fox", width=1024, height=1024)
    assert large["error"].startswith("Maximum size is 1024x768 or 768x1024 pixels")
    odd = replicate.run(SDXL, prompt="a fox", width=1001, height=1000)
    assert odd["error"] == "`height` and `width` have to be divisible by 8 but are 1000 and 1001."
    broken = replicate.run(SDXL, prompt="a fox", image="data:image/png;base64,Zm94")
    assert broken["error"].startswith("cannot identify image file")


@pytest.mark.parametrize(
    ("model", "name", "scale", "expected"),
    [("xinntao/realesrgan", "img", 4, (1024, 512)), ("nightmareai/real-esrgan", "image", 2.5, (640, 320))],
)
def test_upscalers_scale(
    replicate: ReplicateCaller, model: str, name: str, scale: float, expected: tuple[int, int]
) -> None:
    picture = replicate.picture(model, **{name: data_uri(GREEN), "scale": scale})
    assert picture.size == expected
    assert picture.convert("RGB").getpixel((9, 9)) == (0, 255, 0)


def test_outputs_and_uploads_can_be_inputs(replicate: ReplicateCaller) -> None:
    first = replicate.run(SDXL, prompt="a fox", seed=1, width=128, height=64)["output"][0]
    assert replicate.picture("xinntao/realesrgan", img=first).size == (256, 128)
    content = replicate.http.get(first).content
    uploaded = replicate.http.post(
        f"{replicate.server.url}/files", headers=replicate.headers, files={"content": ("a.png", content, "image/png")}
    ).json()["urls"]["get"]
    unchanged = replicate.picture(SDXL, prompt="a hare", image=uploaded, prompt_strength=0)
    assert difference(unchanged, opened(content)) == 0
    replicate.http.delete(uploaded, headers=replicate.headers)
    assert replicate.run(SDXL, prompt="a hare", image=uploaded)["status"] == "failed"


def test_prompt_can_script_later_predictions_of_its_picture(replicate: ReplicateCaller) -> None:
    first = replicate.run(SDXL, prompt="a fox UPSCALE<<FAIL:PA>>", width=64, height=64)
    assert first["status"] == "succeeded"
    second = replicate.run("nightmareai/real-esrgan", image=first["output"][0])
    assert (second["status"], second["error"]) == ("failed", "Prediction interrupted; please retry (code: PA)")


def test_some_pictures_contain_their_prompt(replicate: ReplicateCaller) -> None:
    picture = replicate.picture(SDXL, prompt="a fox", seed=4, width=64, height=64)
    assert json.loads(picture.info["prompt"]) == {"text": "a fox", "seed": 4}
    assert "workflow" in picture.info
    silent = replicate.picture(SCHNELL, prompt="a fox", output_format="png")
    assert "prompt" not in silent.info
    for output_format in ("jpg", "webp"):
        exif = replicate.picture(SCHNELL, prompt="a fox METADATA", output_format=output_format).getexif()
        assert "a fox" in exif[0x010E]


def test_enhanced_prompts_change_the_picture(replicate: ReplicateCaller) -> None:
    for model, plain, enhanced in (
        (KONTEXT, {"prompt_upsampling": False}, {"prompt_upsampling": True}),
        (IDEOGRAM, {"magic_prompt_option": "Off"}, {"magic_prompt_option": "On"}),
    ):
        pictures = [replicate.picture(model, prompt="a fox", seed=1, **inputs) for inputs in (plain, enhanced)]
        assert difference(*pictures) > 5


def test_transparent_and_mislabelled_pictures(replicate: ReplicateCaller) -> None:
    assert replicate.picture(SCHNELL, prompt="a fox TRANSPARENT", output_format="png").mode == "RGBA"
    assert replicate.picture(GPT, prompt="a fox", background="transparent", output_format="png").mode == "RGBA"
    answer = replicate.http.get(replicate.run(SCHNELL, prompt="a fox MISLABEL", output_format="jpg")["output"][0])
    assert answer.headers["content-type"] == "image/jpeg"
    assert opened(answer.content).format == "PNG"


def test_a_truncated_picture_cannot_be_loaded(replicate: ReplicateCaller) -> None:
    data = replicate.bytes_of(SDXL, prompt="TRUNCATED", width=256, height=256)[0]
    with pytest.raises(OSError, match="truncated"):
        opened(data)


def test_bomb_is_a_small_file_with_huge_dimensions(replicate: ReplicateCaller) -> None:
    data = replicate.bytes_of(SDXL, prompt="BOMB", width=64, height=64)[0]
    assert len(data) < 2_000_000
    assert struct.unpack(">II", data[16:24]) == (30_000, 30_000)
    with pytest.raises(Image.DecompressionBombError):
        opened(data)
