"""The settings for the client's tools and schemas; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from openai_dify_proxy.settings.markers import Shown
from openai_dify_proxy.settings.values import Tools, ToolsTemplate
from openai_dify_proxy.translate.tool_template import TEMPLATE as TOOLS_TEMPLATE


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Tools and schemas"""

    tools: Tools = "auto"
    """Whether models call the client's [tools](tools.md) and follow its schemas: `auto`, `emulate`, `ignore` or
    `reject`.

    `auto` does so in all apps that take text. `ignore` drops tools and schemas and names them in the response header
    `X-Unsupported-Parameters`; `reject` answers them with a 400. An app may have [its own](#many-apps)."""
    tools_max_repairs: Annotated[int, Ge(0), Le(5)] = 1
    """The number of further runs that correct an invalid call or answer; each costs as much as another question."""
    tools_reminder: Annotated[int, Ge(1)] = 8
    """The number of turns between two reminders of the tools to the model."""
    tools_template: Annotated[ToolsTemplate, Shown(default="[the template shown there](tools.md#the-instructions)")] = (
        TOOLS_TEMPLATE
    )
    """The wording of the instructions about tools: `{tools}`, `{format}` and `{demand}`.

    A line end is written as `\\n`."""
