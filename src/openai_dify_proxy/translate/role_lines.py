"""The lines that structure a transcript, and the escape that prevents messages from forging them."""

from __future__ import annotations

import re
from collections.abc import Iterator

HEADING = "The conversation so far, oldest message first:"
QUESTION = "The new message to answer:"


_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""All Unicode line separators: a model may take each of them for a line end."""

_LABELS = ("User", "Assistant", "Tool", "System")

_PART = 1 << 20
"""Characters that are searched at once, since the search takes memory for each line that it finds."""

_find_line_end = re.compile(f"[{_LINE_ENDS}]").search


class ForgeableLines:
    """The lines that messages must not contain: lines that look like a role line or like one of ``lines``.

    Case and indentation do not count.
    """

    __slots__ = ("_all_have_colons", "_match", "_patterns")

    def __init__(self, *lines: str) -> None:
        first = "".join({re.escape(line[0]) for line in (*_LABELS, *lines)})
        others = "".join(f"|{re.escape(line)}" for line in lines)
        # The first lookahead is for speed: it rejects most lines at once.
        line = rf"(?=[ \t{first}])[ \t]*+(?:(?:{'|'.join(_LABELS)}) *+:{others})"
        self._match = re.compile(line, re.IGNORECASE).match
        self._patterns = [(end, re.compile(f"{end}(?={line})", re.IGNORECASE)) for end in _LINE_ENDS]
        self._all_have_colons = all(":" in line for line in lines)

    def occur_in(self, text: str) -> bool:
        """Return whether ``text`` has such a line."""
        if self._all_have_colons and ":" not in text:
            return False
        found = (pattern.search(text) for end, pattern in self._patterns if end in text)
        return self._match(text) is not None or any(found)

    def escape(self, text: str) -> str:
        """Put a backslash before each such line of ``text``."""
        return "".join(self.escape_parts(text))

    def escape_parts(self, text: str) -> Iterator[str]:
        """Yield the escaped ``text`` in parts, so that a long text is not copied as a whole."""
        if self._all_have_colons and ":" not in text:
            yield text
            return
        if self._match(text):
            yield "\\"
        for part in _parts(text):
            yield self._escape(part)

    def _escape(self, text: str) -> str:
        """Put a backslash before each such line that has a line end before it."""
        for end, pattern in self._patterns:
            if end in text and len(parts := pattern.split(text)) > 1:
                text = f"{end}\\".join(parts)
        return text


def _parts(text: str) -> Iterator[str]:
    """Yield ``text`` in parts. All but the first begin with a line end."""
    begin = 0
    while begin < len(text):
        found = _find_line_end(text, begin + _PART)
        end = len(text) if found is None else found.start()
        yield text[begin:end]
        begin = end


PLAIN_LINES = ForgeableLines(HEADING, QUESTION)


def escape_role_lines(text: str, lines: ForgeableLines = PLAIN_LINES) -> str:
    """Put a backslash before each line that looks like a line of the transcript itself.

    So a message cannot pose as a message of another role.
    """
    return lines.escape(text)
