"""The settings for the client's tools and schemas; ``model`` has the other settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from openai_dify_proxy.settings.base import CONFIG
from openai_dify_proxy.settings.descriptions import Shown
from openai_dify_proxy.settings.values import Tools, ToolsTemplate
from openai_dify_proxy.translate.tool_template import TEMPLATE as TOOLS_TEMPLATE


class ToolSettings(BaseModel):
    """Tools and schemas"""

    model_config = CONFIG

    tools: Tools = "auto"
    """Whether models call the client's [tools](tools.md) and follow its schemas: `auto`, `emulate`, `ignore` or
    `reject`.

    `auto` does so in all apps that take text. `ignore` drops tools and schemas and names them in the response header
    `X-Unsupported-Parameters`; `reject` answers them with a 400. An app may have [its own](#many-apps)."""
    tools_max_repairs: int = Field(default=1, ge=0, le=5)
    """The number of further runs that correct an invalid call or answer; each costs as much as another question."""
    tools_reminder: int = Field(default=8, ge=1)
    """The number of turns after which a model is reminded of the tools that it was told about."""
    tools_template: Annotated[ToolsTemplate, Shown(default="[the template shown there](tools.md#the-instructions)")] = (
        TOOLS_TEMPLATE
    )
    """The wording of the instructions about tools: `{tools}`, `{format}` and `{demand}`.

    A line end is written as `\\n`."""
