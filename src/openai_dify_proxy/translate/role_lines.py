"""The lines that structure a transcript, and the escape that prevents messages from forging them."""

from __future__ import annotations

import re

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"


class ForgeableLines:
    """The lines that messages must not contain: those that look like a role line, or like one of ``lines``.

    Case and indentation do not count. All Unicode line separators end a line, since a model may take each of them for
    a line end.
    """

    __slots__ = ("_all_have_colons", "_match")

    def __init__(self, *lines: str) -> None:
        others = "".join(f"|{re.escape(line)}" for line in lines)
        self._match = re.compile(rf"[ \t]*(?:(?:User|Assistant|Tool|System) *:{others})", re.IGNORECASE).match
        self._all_have_colons = all(":" in line for line in lines)

    def escape(self, text: str) -> str:
        """Put a backslash before each such line of ``text``."""
        if self._all_have_colons and ":" not in text:
            return text
        lines = text.splitlines(keepends=True)
        match, required = self._match, ":" if self._all_have_colons else ""
        found = [index for index, line in enumerate(lines) if required in line and match(line)]
        if not found:
            return text
        for index in found:
            lines[index] = "\\" + lines[index]
        return "".join(lines)


PLAIN_LINES = ForgeableLines(HEADING, QUESTION)


def escape_role_lines(text: str, lines: ForgeableLines = PLAIN_LINES) -> str:
    """Put a backslash before each line that looks like a line of the transcript itself.

    So a message cannot pose as a message of another role.
    """
    return lines.escape(text)
