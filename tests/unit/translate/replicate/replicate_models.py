"""Schemas of real Replicate models, as served by the scripted Replicate, and small custom ones."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, read_model_inputs
from openai_dify_proxy_demo.replicate import DEMO_MODELS

SCHEMAS: dict[str, dict[str, Any]] = {
    model.name.partition("/")[2]: model.version_body()["openapi_schema"] for model in DEMO_MODELS
}
"""The schemas by model name without the owner."""

MODELS = {name: read_model_inputs(schema) for name, schema in SCHEMAS.items()}


def model_of(**properties: dict[str, Any]) -> ModelInputs:
    """Return a model with these ``Input.properties``; ``required: True`` adds one to the list of required ones."""
    required = [name for name, body in properties.items() if body.get("required")]
    inputs = {"properties": properties, "required": required}
    return read_model_inputs({"components": {"schemas": {"Input": inputs}}})
