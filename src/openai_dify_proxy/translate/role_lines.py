"""The lines that frame a transcript, and what keeps messages from forging them."""

from __future__ import annotations

import re

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"

_LINE_BEGIN = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"


def forgeable_lines(*lines: str) -> re.Pattern[str]:
    """What matches where a line of a text looks like a role line, or like one of ``lines``.

    A model may take more for the end of a line than LF.
    """
    others = "".join(f"|{re.escape(line)}" for line in lines)
    return re.compile(rf"{_LINE_BEGIN}(?=[ \t]*(?:(?:User|Assistant|Tool|System) *:{others}))", re.IGNORECASE)


PLAIN_LINES = forgeable_lines(HEADING, QUESTION)


def escape_role_lines(text: str, lines: re.Pattern[str] = PLAIN_LINES) -> str:
    """``text`` with a backslash before each line that looks like one of a transcript's own.

    So nobody can put words into another's mouth.
    """
    return lines.sub(r"\\", text)
