"""The settings for runs that wait for a person; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import HumanInput, HumanInputOther


@dataclass(frozen=True, kw_only=True)
class HumanInputSettings:
    """Human input"""

    human_input: HumanInput = "auto"
    """How the form of a [paused run](human-input.md) reaches clients: `auto`, `tool` or `text`.

    `tool` is a call of the function `dify_human_input`, `text` the answer's text. `auto` is a call if the request has
    tools. A request may choose with its field `human_input`, and an app may have [its own](#many-apps)."""
    human_input_other: HumanInputOther = "ask"
    """How to treat a message in a paused conversation that does not answer the form: `ask` or `run`.

    `ask` shows the form again. `run` starts another run in the same conversation, as Dify does."""
