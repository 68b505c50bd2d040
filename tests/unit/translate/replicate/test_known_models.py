"""Compare the built-in table with the schemas of real models."""

from __future__ import annotations

import pytest

from openai_dify_proxy.translate.replicate.candidates import CANDIDATES
from openai_dify_proxy.translate.replicate.headers import HEADERS
from openai_dify_proxy.translate.replicate.known_models import (
    KNOWN_MODELS,
    UNKNOWN_MODEL,
    repainted_colour,
    suggest_model,
)
from openai_dify_proxy_demo.replicate import DEMO_MODELS
from tests.unit.translate.replicate.replicate_models import MODELS


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_the_table_agrees_with_the_models(name: str) -> None:
    real = MODELS[name.partition("/")[2]]
    for field in KNOWN_MODELS[name].fields.values():
        other = real.fields[field.name]
        assert (field.kind, field.uri, field.required) == (other.kind, other.uri, other.required)
        assert (field.minimum, field.maximum, field.options) == (other.minimum, other.maximum, other.options)


def test_an_unknown_model_has_the_specifications_parameters() -> None:
    """Only inputs with a common name among Replicate's models are assumed."""
    parameters = {header.parameter for header in HEADERS}
    assert set(CANDIDATES) <= parameters
    spelled = {name for name, field in UNKNOWN_MODEL.fields.items() if name in parameters}
    assert spelled == {
        *("negative_prompt", "mask", "num_outputs", "scheduler", "num_inference_steps"),
        *("guidance_scale", "prompt_strength", "seed"),
    }


@pytest.mark.parametrize(
    ("model", "colour"),
    [*((model.name, model.repaints) for model in DEMO_MODELS), ("someone/else", "white"), (None, "white")],
)
def test_the_colour_where_a_mask_repaints(model: str | None, colour: str) -> None:
    assert repainted_colour(model) == colour


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("flux-schnell", "black-forest-labs/flux-schnell"), ("SDXL", "stability-ai/sdxl"), ("flux", None), ("", None)],
)
def test_a_known_model_without_its_owner_is_suggested(name: str, suggested: str | None) -> None:
    assert suggest_model(name) == suggested
