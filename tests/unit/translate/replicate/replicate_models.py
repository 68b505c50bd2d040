"""Schemas of Replicate's models, as the scripted Replicate serves them, and small ones of a test's own."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, read_model_inputs
from openai_dify_proxy_demo.replicate import DEMO_MODELS

SCHEMAS: dict[str, dict[str, Any]] = {
    model.name.partition("/")[2]: model.version_body()["openapi_schema"] for model in DEMO_MODELS
}
"""By the models' names, without their owners."""

MODELS = {name: read_model_inputs(schema) for name, schema in SCHEMAS.items()}


def model_of(**properties: dict[str, Any]) -> ModelInputs:
    """A model with these ``Input.properties``; ``required: True`` in one puts it into the list of those."""
    required = [name for name, body in properties.items() if body.get("required")]
    inputs = {"properties": properties, "required": required}
    return read_model_inputs({"components": {"schemas": {"Input": inputs}}})
