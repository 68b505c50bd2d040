"""The image models of the TOML file, ``[images.models.<name>]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_dify_proxy.settings.names import IMAGE_MODEL_KEYS, Draft, RawValue, did_you_mean, named_tables


def draft_image_models(table: Mapping[str, Any], file: str, problems: list[str]) -> dict[str, Draft]:
    """Return the models by name. Appends to ``problems``."""
    images = table.get("images", {})
    models = images.get("models", {}) if isinstance(images, dict) else None
    if not isinstance(models, dict) or not all(isinstance(model, dict) for model in models.values()):
        problems.append(f"images in {file} must contain a table for each model: write [images.models.<name>]")
        return {}
    problems += [
        f"{key} of [images] in {file} is not a setting: [images] contains only models"
        for key in images
        if key != "models"
    ]
    named = named_tables(models, "images.models", file, IMAGE_MODEL_KEYS, problems)
    return {name: _draft(name, model, file, problems) for name, model in named.items()}


def _draft(name: str, table: Mapping[str, Any], file: str, problems: list[str]) -> Draft:
    origin = f"[images.models.{name}] in {file}"
    problems += [
        f"{key} of {origin} is not a setting of an image model{did_you_mean(key, IMAGE_MODEL_KEYS)}"
        for key in table
        if key not in IMAGE_MODEL_KEYS
    ]
    fields = {key: RawValue(value, f"{key} of {origin}") for key, value in table.items() if key in IMAGE_MODEL_KEYS}
    return Draft(origin, fields)
