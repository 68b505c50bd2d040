"""Files that the demo's apps make, and the fixed texts of moderation and human input."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy_demo.events import produced_file
from openai_dify_proxy_demo.runs import Run, new_id

PRESET = "This answer was withheld."
"""What stands in the place of an answer that output moderation refuses."""

QUESTION_TO_HUMAN = "May I go on?"
"""What an app asks when its script pauses it."""

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753"
    "de0000000c4944415478da63f8cfc0000003010100f70341430000000049454e44ae426082"
)
"""The picture that the demo makes: one red dot, as PNG."""


def produced_url(run: Run, file_id: str) -> str:
    """Where a produced picture is served, signed as Dify signs such links."""
    return f"{run.files_url}/files/tools/{file_id}.png?timestamp={run.envelope.created_at}&nonce=demo&sign=demo"


def produced(run: Run) -> dict[str, Any]:
    """A produced picture, as graph apps list it."""
    file_id = new_id()
    return produced_file(file_id, produced_url(run, file_id), size=len(PICTURE), dialect=run.dialect)


def message_file(run: Run) -> dict[str, Any]:
    """The event by which chat and agent apps show a produced picture."""
    file_id = new_id()
    url = produced_url(run, file_id)
    return run.envelope.chat("message_file", id=file_id, type="image", belongs_to="assistant", url=url)
