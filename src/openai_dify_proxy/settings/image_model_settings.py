"""The settings of one image model, a table ``[images.models.<name>]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel

from openai_dify_proxy.settings.base import CONFIG
from openai_dify_proxy.settings.descriptions import Shown
from openai_dify_proxy.settings.values import ImageModelName, Inputs, MaskColour, Text


class ImageModelSettings(BaseModel):
    """One Replicate model or Dify app under a name of the operator's choice: a table ``[images.models.<name>]``."""

    model_config = CONFIG

    name: Text
    """The name of the table, which is the name of the OpenAI model."""
    model: ImageModelName | None = None
    """The Replicate model: `owner/name`, `owner/name:version`, a version, or `deployment:owner/name`."""
    app: Text | None = None
    """Instead of `model`, the configured app that [makes the pictures](images.md#dify-apps)."""
    inputs: Inputs = {}
    """Values for the model's or the app's inputs that a request does not set."""
    upscaler: Annotated[ImageModelName | None, Shown(default="`IMAGE_UPSCALER`")] = None
    """The Replicate model that upscales this model's pictures."""
    mask_repaints: Annotated[MaskColour | None, Shown(default="detected, else `white`")] = None
    """The colour of the area of a mask that the model repaints: `black` or `white`.

    Detected as black for Ideogram's models and Stable Diffusion."""
