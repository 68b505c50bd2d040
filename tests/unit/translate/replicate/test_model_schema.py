"""Model schemas as written by Cog, and unusual ones."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs, describe, read_model_inputs
from tests.unit.translate.replicate.replicate_models import MODELS, SCHEMAS, model_of


def test_a_schema_of_cog() -> None:
    model = MODELS["sdxl"]
    assert list(model.fields)[:5] == ["prompt", "negative_prompt", "image", "mask", "width"]
    assert model.fields["scheduler"] == ModelInput(
        "scheduler",
        "string",
        options=("DDIM", "DPMSolverMultistep", "HeunDiscrete", "KarrasDPM", "K_EULER_ANCESTRAL", "K_EULER", "PNDM"),
        default="K_EULER",
        description="scheduler",
    )
    steps = model.fields["num_inference_steps"]
    assert (steps.kind, steps.minimum, steps.maximum, steps.default, steps.required) == ("integer", 1, 500, 50, False)
    assert MODELS["flux-schnell"].fields["prompt"].required
    assert MODELS["seedream-4.5"].fields["image_input"].uri
    assert MODELS["stable-diffusion"].fields["width"].options[:2] == (128, 256)


NULLABLE = {"anyOf": [{"type": "integer", "maximum": 5}, {"type": "null"}]}

SCHEMAS_OF_ALL_KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no schema": ({}, {}),
    "no inputs": ({"components": {"schemas": {}}}, {}),
    "components that are none": ({"components": []}, {}),
    "properties that are none": ({"components": {"schemas": {"Input": {"properties": 7}}}}, {}),
    "a property that is none": ({"components": {"schemas": {"Input": {"properties": {"a": 7}}}}}, {"kind": "string"}),
    "lists that are none": (
        {"components": {"schemas": {"Input": {"required": 7, "properties": {"a": {"enum": 7, "allOf": None}}}}}},
        {"kind": "string", "options": ()},
    ),
    "a reference to nothing": (
        {"components": {"schemas": {"Input": {"properties": {"a": {"$ref": "#/nowhere", "default": 1}}}}}},
        {"kind": "string", "default": 1},
    ),
    "a bare reference": (
        {
            "components": {
                "schemas": {"e": {"enum": ["x"], "type": "string"}, "Input": {"properties": {"a": {"$ref": "#/c/e"}}}}
            }
        },
        {"kind": "string", "options": ("x",)},
    ),
    "what may be null": (
        {"components": {"schemas": {"Input": {"properties": {"a": NULLABLE | {"default": 2}}}}}},
        {"kind": "integer", "maximum": 5, "default": 2},
    ),
    "types in a list": (
        {"components": {"schemas": {"Input": {"properties": {"a": {"type": ["null", "number"], "minimum": True}}}}}},
        {"kind": "number", "minimum": None},
    ),
}


@pytest.mark.parametrize("case", SCHEMAS_OF_ALL_KINDS)
def test_schemas_of_all_kinds(case: str) -> None:
    schema, expected = SCHEMAS_OF_ALL_KINDS[case]
    fields = read_model_inputs(schema).fields
    assert bool(fields) is bool(expected)
    assert {name: getattr(fields["a"], name) for name in expected} == expected


def test_inputs_keep_the_models_order() -> None:
    model = model_of(c={"x-order": 2}, a={}, b={"x-order": 0})
    assert list(model.fields) == ["b", "c", "a"]
    assert describe(model) == "b, c, a"
    assert describe(ModelInputs({})) == "none"
    assert model.first(("z", "a", "b")) is model.fields["a"]
    assert model.first(("z",)) is None
    assert len(SCHEMAS) == 12


# The values that an input accepts, with their conversions, the values that it rejects, and its description.
ACCEPTED: dict[str, tuple[dict[str, Any], dict[Any, Any], list[Any], str]] = {
    "a text": ({"type": "string"}, {"x": "x", "": ""}, [7, True, None, ["x"]], "text"),
    "a URL": ({"type": "string", "format": "uri"}, {"https://a": "https://a"}, [7], "a URL"),
    "a number with bounds": (
        {"type": "number", "minimum": 1, "maximum": 20},
        {1: 1, 20: 20, 7.5: 7.5},
        [0.99, 20.01, "7", True, None, float("nan"), float("inf")],
        "a number from 1 to 20",
    ),
    "a number": ({"type": "number"}, {-1e9: -1e9, 10**20: 10**20}, [float("inf"), float("nan"), 10**400], "a number"),
    "an integer of 64 bits": (
        {"type": "integer"},
        {2**63 - 1: 2**63 - 1, -(2**63): -(2**63), 7.0: 7},
        [2**63, -(2**63) - 1, 1e20, float("nan"), 0.5],
        "an integer",
    ),
    "exclusive bounds": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {0.5: 0.5},
        [0, 1, -1],
        "a number above 0 below 1",
    ),
    "exclusive bounds of OpenAPI 3.0": (
        {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": False},
        {0.5: 0.5, 1: 1},
        [0],
        "a number up to 1 above 0",
    ),
    "exclusive bounds of integers": (
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 4},
        {1: 1, 3: 3},
        [0, 4],
        "an integer from 1 to 3",
    ),
    "integers in steps": ({"type": "integer", "multipleOf": 8}, {0: 0, 16: 16}, [4, 20], "an integer in steps of 8"),
    "numbers in steps": ({"type": "number", "multipleOf": 0.1}, {0.3: 0.3, 2: 2}, [0.25], "a number in steps of 0.1"),
    "steps that are none": ({"type": "number", "multipleOf": 0}, {0.3: 0.3}, [], "a number"),
    "a text of some length": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        {"ab": "ab", "abc": "abc"},
        ["", "a", "abcd"],
        "text of at least 2 characters of at most 3 characters",
    ),
    "a list of texts": (
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        {},
        [[], ["a", 7], ["a", "b", "c"], "a"],
        "an array of at least 1 items of at most 2 items whose items are text",
    ),
    "a list of choices": (
        {"type": "array", "items": {"enum": ["x", "y"]}},
        {},
        [["z"], [["x"]]],
        "an array whose items are one of x, y",
    ),
    "lengths that are none": ({"type": "string", "maxLength": -1, "minLength": "x"}, {"": ""}, [7], "text"),
    "an integer from below": ({"type": "integer", "minimum": 0}, {0: 0, 7.0: 7}, [-1, 0.5], "an integer from 0 up"),
    "an integer up to a maximum": (
        {"type": "integer", "maximum": 2147483647},
        {2147483647: 2147483647, -5: -5},
        [2147483648, float("inf")],
        "an integer up to 2147483647",
    ),
    "a switch": ({"type": "boolean"}, {True: True, False: False}, [1, "yes", None], "true or false"),
    "a list": ({"type": "array", "items": {"format": "uri"}}, {}, ["https://a", None], "an array"),
    "an object": ({"type": "object"}, {}, [[], "x"], "an object"),
    "an enum": (
        {"enum": ["DDIM", "K_EULER"]},
        {"DDIM": "DDIM", "k_euler": "K_EULER"},
        ["EULER", 7],
        "one of DDIM, K_EULER",
    ),
    "an enum of numbers": ({"enum": [1, 4]}, {1: 1, "4": 4, 4.0: 4}, [2, "x"], "one of 1, 4"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_values_of_an_input(case: str) -> None:
    body, taken, refused, words = ACCEPTED[case]
    field = model_of(a=body).fields["a"]
    assert {value: field.accept(value, "p") for value in taken} == taken
    assert all(type(field.accept(value, "p")) is type(expected) for value, expected in taken.items())
    for value in refused:
        with pytest.raises(InvalidRequest) as error:
            field.accept(value, "p")
        limits = f"This model's 'a' must be {words}."
        if field.options or isinstance(value, bool) or not isinstance(value, (int, float)):
            assert error.value.message == f"p is invalid. {limits}"
        else:
            assert error.value.message in (f"p is invalid. {limits}", f"p is too large. {limits}", TOO_LARGE)
        assert error.value.param == "p"


TOO_LARGE = "p is too large. This model's 'a' must be an integer up to 9223372036854775807."


@pytest.mark.parametrize(
    ("body", "value", "message"),
    [
        ({"type": "integer"}, 2**63, TOO_LARGE),
        (
            {"type": "integer", "minimum": 0},
            10**30,
            "p is too large. This model's 'a' must be an integer from 0 to 9223372036854775807.",
        ),
        (
            {"type": "integer", "minimum": 0, "maximum": 2147483647},
            2147483648,
            "p is too large. This model's 'a' must be an integer from 0 to 2147483647.",
        ),
        ({"type": "number", "maximum": 5}, 5.5, "p is too large. This model's 'a' must be a number up to 5."),
        ({"type": "integer", "minimum": 3}, 2, "p is invalid. This model's 'a' must be an integer from 3 up."),
        ({"type": "string"}, 10**30, "p is invalid. This model's 'a' must be text."),
        ({"enum": [1, 2]}, 10**30, "p is invalid. This model's 'a' must be one of 1, 2."),
    ],
)
def test_numbers_that_are_too_large(body: dict[str, Any], value: float, message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        model_of(a=body).fields["a"].accept(value, "p")
    assert error.value.message == message


def test_lists_and_objects_are_accepted() -> None:
    model = model_of(a={"type": "array"}, b={"type": "object"}, c={"type": "something new"})
    assert model.fields["a"].accept(["https://a"], "p") == ["https://a"]
    choices = model_of(a={"type": "array", "items": {"enum": ["x"]}}).fields["a"]
    assert choices.accept(["x", "x"], "p") == ["x", "x"]
    assert model.fields["b"].accept({"x": 1}, "p") == {"x": 1}
    assert model.fields["c"].accept({7}, "p") == {7}
