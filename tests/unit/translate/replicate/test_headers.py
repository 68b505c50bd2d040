"""The headers of the specification: all limits and the values beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.headers import HEADER_OF, ImageHeaders, read_image_headers

SPECIFIED = {
    "X-Output-Format": "output_format",
    "X-Replicate-Scheduler": "scheduler",
    "X-Replicate-Num-Inference-Steps": "num_inference_steps",
    "X-Replicate-Guidance-Scale": "guidance_scale",
    "X-Replicate-Seed": "seed",
    "X-Replicate-Negative-Prompt": "negative_prompt",
    "X-Replicate-Prompt-Strength": "prompt_strength",
    "X-Replicate-Num-Outputs": "num_outputs",
    "X-Replicate-Safety-Checker": "safety_checker",
    "X-Replicate-Enhance-Prompt": "enhance_prompt",
    "X-Replicate-Upscale": "upscale",
    "X-Replicate-Upscale-Factor": "upscale_factor",
    "X-Replicate-Style-Preset": "style_preset",
    "X-Replicate-Init-Image": "init_image",
    "X-Replicate-Mask": "mask",
}

YES_NO: dict[str, Any] = {
    **dict.fromkeys(("yes", "YES", "Yes", "true", "1"), True),
    **dict.fromkeys(("no", "NO", "false", "0"), False),
}
URLS = {url: url for url in ("https://example.org/a.png", "http://example.org:8080/?a=b", "https://[2001:db8::1]/x")}
NO_URLS = ("", "example.org/a.png", "ftp://example.org/a", "file:///etc/passwd", "data:image/png;base64,AA", "https://")

# By header: values with their meanings, and invalid values.
VALUES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "X-Output-Format": (
        {"jpg": "jpg", "jpeg": "jpg", "JPEG": "jpg", "png": "png", "webp": "webp", "PNG": "png", " webp ": "webp"},
        ("", "jpg2", "gif", "svg", "png,webp"),
    ),
    "X-Output-Quality": ({"0": 0, "80": 80, "100": 100}, ("", "-1", "101", "80.5", "high")),
    "X-Replicate-Scheduler": (
        {name: name for name in ("DDIM", "DPMSolverMultistep", "K_EULER", "K_EULER_ANCESTRAL", "PNDM")}
        | {"k_euler": "K_EULER"},
        ("", "EULER", "KLMS", "HeunDiscrete", "DDIM "[:-1] + "x"),
    ),
    "X-Replicate-Num-Inference-Steps": (
        {"1": 1, "50": 50, "500": 500, "007": 7},
        ("", "0", "501", "-1", "1.5", "1e2", "٥", "5_0", "ten", "9" * 21),
    ),
    "X-Replicate-Guidance-Scale": (
        {"1": 1.0, "1.0": 1.0, "7.5": 7.5, "20": 20.0, "1e1": 10.0},
        ("", "0.99", "20.01", "-3", "nan", "inf", "7,5", "1_0", "٧", "7" * 41),
    ),
    "X-Replicate-Seed": (
        {"0": 0, "42": 42, "4294967296": 4294967296, str(2**63 - 1): 2**63 - 1},
        ("", "-1", "1.0", "0x10", "random"),
    ),
    "X-Replicate-Negative-Prompt": (
        {"blurry": "blurry", " a, b ": "a, b", "schÃ¶n": "schön", "caf\xe9": "café"},
        ("", "  "),
    ),
    "X-Replicate-Prompt-Strength": ({"0": 0.0, "0.8": 0.8, "1": 1.0, ".5": 0.5}, ("", "-0.01", "1.01", "nan", "half")),
    "X-Replicate-Num-Outputs": ({"1": 1, "4": 4}, ("", "0", "5", "-1", "2.0", "all")),
    "X-Replicate-Safety-Checker": (YES_NO, ("", "off", "2", "y")),
    "X-Replicate-Enhance-Prompt": (YES_NO, ("", "on", "maybe")),
    "X-Replicate-Upscale": (YES_NO, ("", "2", "4x")),
    "X-Replicate-Upscale-Factor": ({"2": 2, "4": 4}, ("", "1", "3", "8", "2.0", "x2")),
    "X-Replicate-Style-Preset": ({"anime": "anime", "digital-art": "digital-art"}, ("",)),
    "X-Replicate-Init-Image": (URLS, (*NO_URLS, "https://user:word@example.org/a", "http://[::1/a")),
    "X-Replicate-Mask": (URLS, (*NO_URLS, "https://user@example.org/a")),
}


def test_every_header_of_the_specification_is_known() -> None:
    assert {name: parameter for parameter, name in HEADER_OF.items()} == {
        **SPECIFIED,
        "X-Output-Quality": "output_quality",
    }
    assert VALUES.keys() == SPECIFIED.keys() | {"X-Output-Quality"}


@pytest.mark.parametrize("header", VALUES)
def test_meanings_of_values(header: str) -> None:
    legal, _ = VALUES[header]
    (parameter,) = (parameter for parameter, name in HEADER_OF.items() if name == header)
    read = {text: read_image_headers([(header, text)]).values for text in legal}
    assert read == {text: {parameter: value} for text, value in legal.items()}


@pytest.mark.parametrize("header", VALUES)
def test_invalid_values_are_rejected_with_the_headers_name(header: str) -> None:
    _, illegal = VALUES[header]
    for text in illegal:
        with pytest.raises(InvalidRequest) as refused:
            read_image_headers([(header, text)])
        assert (refused.value.param, refused.value.status) == (header, 400), text
        assert refused.value.message.startswith(f"{header} must be ")


def test_other_headers_are_ignored() -> None:
    read = read_image_headers([("Accept", "image/*"), ("x-replicate-seed", "7"), ("replicate-seed", "x")])
    assert read == ImageHeaders({"seed": 7})


def test_unknown_headers_are_reported() -> None:
    sent = [
        ("x-replicate-sede", "7"),
        ("X-Output-SIZE", "1"),
        ("x-replicate-sede", "8"),
        ("x-replicate-" + "a" * 99, "1"),
    ]
    assert read_image_headers(sent).unknown == ("X-Replicate-Sede", "X-Output-Size", "X-Replicate-A" + "a" * 67)


@pytest.mark.parametrize("seed", [str(2**63), str(2**64), "9" * 21, "9" * 9999, "0" * 50 + "1" + "0" * 19])
def test_seeds_beyond_64_bits(seed: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_image_headers([("X-Replicate-Seed", seed)])
    assert refused.value.message == "X-Replicate-Seed is too large. The limit is 9223372036854775807."
    assert refused.value.param == "X-Replicate-Seed"


def test_repeated_headers() -> None:
    same = [("x-output-format", "jpg"), ("x-output-format", "JPEG"), ("x-output-format", "jpg")]
    assert read_image_headers(same).values == {"output_format": "jpg"}
    with pytest.raises(InvalidRequest) as refused:
        read_image_headers([("x-replicate-seed", "1"), ("x-output-format", "jpg"), ("x-replicate-seed", "2")])
    assert refused.value.param == "X-Replicate-Seed"
    assert refused.value.message == "The header 'X-Replicate-Seed' is sent twice, with different values. Send it once."
