"""Places the instructions about the client's tools and schemas in the request to Dify.

An app input for them gets them on every turn. Otherwise they follow the question, in a block that is removed where the
messages of a conversation are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.translate.dify.app_profile import SYSTEM_NAMES, TOOL_NAMES, AppProfile

OPEN, CLOSE = "<instructions>", "</instructions>"

Extent = Literal["full", "reminder", "demand"]


class Instructions(Struct, frozen=True):
    """What a model is told about tools and schemas.

    ``full`` holds the definitions, the form of calls, and what this turn demands. ``reminder`` lacks the definitions,
    ``demand`` is the rest, often nothing. ``identity`` is the same for all turns with the same definitions.
    """

    full: str
    reminder: str
    demand: str
    identity: str

    def text(self, extent: Extent) -> str:
        return {"full": self.full, "reminder": self.reminder, "demand": self.demand}[extent]


def place_instructions(
    instructions: Instructions, extent: Extent, question: Iterable[str], profile: AppProfile, inputs: dict[str, Any]
) -> Iterable[str]:
    """Return the parts of the question with the instructions, unless an input of the app takes them.

    An input holds the full text on every turn, and keeps its other content.
    """
    field = profile.text_input(TOOL_NAMES) or profile.text_input(SYSTEM_NAMES)
    text = instructions.text(extent)
    if field is not None:
        content = "\n\n".join(filter(None, (inputs.get(field.name), instructions.full)))
        if field.fits(content):
            inputs[field.name] = content
            return question
    return (*question, f"\n\n{OPEN}\n{text}\n{CLOSE}") if text else question


def without_instructions(question: str) -> str:
    """Return a question as the client sent it."""
    before, block, _ = question.rpartition(f"\n\n{OPEN}\n")
    return before if block and question.endswith(CLOSE) else question
