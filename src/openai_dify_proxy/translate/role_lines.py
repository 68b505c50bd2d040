"""The lines that structure a transcript, and the escape that prevents messages from forging them."""

from __future__ import annotations

import re

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"

_LINE_BEGIN = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"


def forgeable_lines(*lines: str) -> re.Pattern[str]:
    """Return a pattern that matches before each line that looks like a role line or like one of ``lines``.

    It covers all Unicode line separators, since a model may take each of them for a line end.
    """
    others = "".join(f"|{re.escape(line)}" for line in lines)
    return re.compile(rf"{_LINE_BEGIN}(?=[ \t]*(?:(?:User|Assistant|Tool|System) *:{others}))", re.IGNORECASE)


PLAIN_LINES = forgeable_lines(HEADING, QUESTION)


def escape_role_lines(text: str, lines: re.Pattern[str] = PLAIN_LINES) -> str:
    """Put a backslash before each line that looks like a line of the transcript itself.

    So a message cannot pose as a message of another role.
    """
    return lines.sub(r"\\", text)
