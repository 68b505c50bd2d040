"""The image models of the TOML file, ``[images.models.<name>]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_dify_proxy.settings.names import IMAGE_MODEL_KEYS, Draft, named_tables, table_fields


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
    drafts = {}
    for name, model in named.items():
        origin = f"[images.models.{name}] in {file}"
        drafts[name] = Draft(origin, table_fields(model, origin, IMAGE_MODEL_KEYS, "an image model", problems))
    return drafts
