"""The settings of one image model, a table ``[images.models.<name>]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from openai_dify_proxy.settings.markers import Shown
from openai_dify_proxy.settings.values import ImageModelName, Inputs, MaskColour, Text


@dataclass(frozen=True, kw_only=True)
class ImageModelSettings:
    """One Replicate model or Dify app under a name of the operator's choice: a table ``[images.models.<name>]``."""

    name: Text
    """The name of the table, which is the name of the OpenAI model."""
    model: ImageModelName | None = None
    """The Replicate model: `owner/name`, `owner/name:version`, a version, or `deployment:owner/name`."""
    app: Text | None = None
    """Instead of `model`, the configured app that [makes the pictures](images.md#dify-apps)."""
    inputs: Inputs = field(default_factory=dict)
    """Values for the model's or the app's inputs that a request does not set."""
    upscaler: Annotated[ImageModelName | None, Shown(default="`IMAGE_UPSCALER`")] = None
    """The Replicate model that upscales this model's pictures."""
    mask_repaints: Annotated[MaskColour | None, Shown(default="detected, else `white`")] = None
    """The colour of the area of a mask that the model repaints: `black` or `white`.

    Detected as black for Ideogram's models and Stable Diffusion."""
