"""A second implementation of ``<think>`` blocks: a regular expression over the whole text."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def split_whole(text: str) -> tuple[str, str]:
    """Split a text into the reasoning and the visible part.

    A line break right after the tag belongs to it; so do those between a block and the first visible character.
    """
    reasoning = "".join(block.removeprefix("\n") for block in _BLOCK.findall(text))
    visible = ""
    thought = False
    for index, part in enumerate(_BLOCK.split(text)):
        if index % 2:
            thought = True
        elif thought and not visible:
            visible = part.lstrip("\r\n")
        else:
            visible += part
    return reasoning, visible
