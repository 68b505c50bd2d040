"""The lines that frame a transcript, and what keeps messages from forging them."""

from __future__ import annotations

import re

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"

_LINE_BEGIN = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"
_ROLE_LINE = re.compile(
    rf"{_LINE_BEGIN}(?=[ \t]*(?:(?:User|Assistant|Tool|System) *:|{HEADING}|{QUESTION}))", re.IGNORECASE
)


def escape_role_lines(text: str) -> str:
    """``text`` with a backslash before each line that looks like one of a transcript's own.

    So nobody can put words into another's mouth; a model may take more for the end of a line than LF.
    """
    return _ROLE_LINE.sub(r"\\", text)
