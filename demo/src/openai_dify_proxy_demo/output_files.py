"""The picture that `FILE` produces, and the JSON objects that refer to it."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy_demo.events import file_object
from openai_dify_proxy_demo.runs import Run, new_id

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753"
    "de0000000c4944415478da63f8cfc0000003010100f70341430000000049454e44ae426082"
)
"""A PNG of one red pixel."""


def output_file(run: Run) -> dict[str, Any]:
    """Return the file object that chatflows and workflows list in `files`."""
    file_id = new_id()
    return file_object(file_id, _file_url(run, file_id), size=len(PICTURE), dialect=run.dialect)


def message_file(run: Run) -> dict[str, Any]:
    """Return the `message_file` event of chat and agent apps."""
    file_id = new_id()
    url = _file_url(run, file_id)
    return run.envelope.chat("message_file", id=file_id, type="image", belongs_to="assistant", url=url)


def _file_url(run: Run, file_id: str) -> str:
    """Return the URL of a file, with the query parameters of a link that Dify signed."""
    return f"{run.files_url}/files/tools/{file_id}.png?timestamp={run.envelope.created_at}&nonce=demo&sign=demo"
