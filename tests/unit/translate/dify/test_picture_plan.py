"""Map image requests to the inputs of Dify apps."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.file_rules import FileRules
from openai_dify_proxy.translate.dify.picture_plan import PicturePlan, plan_app_pictures
from openai_dify_proxy.translate.pictures.accept import read_accept
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, Policy

FORM = (
    InputField("text-input", "size", max_length=9),
    InputField("select", "quality", options=("low", "high")),
    InputField("number", "seed"),
    InputField("file", "style"),
    InputField("file", "mask", files=FileRules(frozenset({"image"}), {}, local=True, remote=True, count=1)),
)


def plan(
    *, form: tuple[InputField, ...] = FORM, policy: Policy = "reject", inputs: Any = None, **more: Any
) -> PicturePlan:
    parameters = ImageParameters(**{"prompt": "A fox", **more})
    return plan_app_pictures(parameters, AppProfile("workflow", form), inputs or {}, policy)


def test_a_plain_request() -> None:
    assert plan() == PicturePlan(inputs={}, n=1, output_format="png", quality=None, notices=())
    assert plan(n=3, inputs={"size": "1x1"}).inputs == {"size": "1x1"}


@pytest.mark.parametrize(
    ("name", "value", "placed"),
    [
        ("size", "64x32", "64x32"),
        ("size", "auto", ...),
        ("size", "10000x10000", None),
        ("quality", "high", "high"),
        ("quality", "hd", None),
        ("seed", 7, 7),
        ("seed", "seven", None),
        ("style", "vivid", None),
        ("background", "transparent", None),
    ],
)
def test_a_field_sets_the_input_of_its_name_or_is_dropped(name: str, value: Any, placed: Any) -> None:
    made = plan(body={name: value}, inputs={"size": "1x1"})
    if placed in (None, ...):
        assert made.inputs == {"size": "1x1"}
        assert made.notices == ((name,) if placed is None else ())
    else:
        assert made.inputs == {"size": "1x1", name: placed}
        assert made.notices == ()


def test_inputs_of_the_body_take_precedence() -> None:
    made = plan(body={"size": "64x32"}, extra={"size": "1x2"}, inputs={"size": "1x1"})
    assert made.inputs == {"size": "1x2"}


@pytest.mark.parametrize(("policy", "notices"), [("warn", ("input.steps",)), ("drop", ())])
def test_unknown_inputs_are_dropped_if_the_settings_say_so(policy: Policy, notices: tuple[str, ...]) -> None:
    made = plan(extra={"steps": 3}, policy=policy)
    assert (made.inputs, made.notices) == ({}, notices)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"headers": {"seed": 7}}, "X-Replicate-Seed"),
        ({"unknown": ("X-Replicate-Sede",)}, "X-Replicate-Sede"),
        ({"prompt": None}, "prompt"),
        ({"extra": {"steps": 3}}, "input.steps"),
        ({"extra": {"steps": 3}, "form": ()}, "input.steps"),
        ({"has_mask": True, "mask_param": "mask", "form": ()}, "mask"),
        ({"has_mask": True, "mask_param": "mask", "form": (InputField("paragraph", "mask"),)}, "mask"),
        ({"body": {"size": "large"}}, "size"),
        ({"headers": {"output_format": "png"}, "body": {"output_format": "webp"}}, "X-Output-Format"),
    ],
)
def test_what_the_app_cannot_do_is_rejected_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as rejected:
        plan(**more)
    assert rejected.value.param == param


def test_a_mask_needs_an_input_for_a_file() -> None:
    assert plan(has_mask=True, has_init=True).inputs == {}


@pytest.mark.parametrize(
    ("headers", "body", "accept", "chosen", "notices"),
    [
        ({"output_format": "webp"}, {}, "", "webp", ()),
        ({}, {"output_format": "jpeg"}, "", "jpg", ()),
        ({}, {"output_format": "tiff"}, "", "png", ("output_format",)),
        ({}, {}, "image/webp", "webp", ()),
        ({}, {"output_format": "png"}, "image/webp", "webp", ("output_format",)),
        ({"output_format": "png"}, {}, "image/webp", "webp", ("X-Output-Format",)),
        ({"output_format": "webp"}, {}, "image/*", "webp", ()),
    ],
)
def test_the_proxy_converts(
    headers: dict[str, Any], body: dict[str, Any], accept: str, chosen: str, notices: tuple[str, ...]
) -> None:
    made = plan(headers=headers, body=body, accepted=read_accept(accept))
    assert (made.output_format, made.notices) == (chosen, notices)


@pytest.mark.parametrize(
    ("headers", "body", "quality", "notices"),
    [
        ({"output_quality": 80}, {}, 80, ()),
        ({}, {"output_compression": 70}, 70, ()),
        ({}, {"output_compression": 101}, None, ("output_compression",)),
    ],
)
def test_the_quality_of_conversions(
    headers: dict[str, Any], body: dict[str, Any], quality: int | None, notices: tuple[str, ...]
) -> None:
    made = plan(headers=headers, body=body)
    assert (made.quality, made.notices) == (quality, notices)
