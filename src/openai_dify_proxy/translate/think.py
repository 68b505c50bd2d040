"""Separates ``<think>`` blocks from a text that arrives in pieces, wherever the pieces are cut.

Dify passes on the reasoning of some models inside the answer. White space around a block belongs to the mark-up: a line
break right after ``<think>`` is dropped, as are line breaks between ``</think>`` and the first visible character.
"""

from __future__ import annotations

import re

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta

OPEN, CLOSE = "<think>", "</think>"

MAX_BLOCKS = 1000
"""Blocks of an answer that are separated, since each one is an event. Later tags count as text."""

_BLOCK = re.compile(f"{OPEN}.*?(?:{CLOSE}|\\Z)", re.DOTALL)


class ThinkSplitter(Entity):
    """Splits text into ``TextDelta`` and ``ReasoningDelta``; it buffers less than the length of a tag.

    While ``idle`` is true, text without ``<`` is visible unchanged and need not be fed.
    """

    idle: bool = False
    _blocks: int = 0
    _buffer: str = ""
    _thinking: bool = False
    _fresh: bool = True  # the next reasoning begins a block
    _reasoned: bool = False
    _bare: bool = True  # no visible text was emitted yet

    def feed(self, text: str, out: list[Event]) -> None:
        """Append to ``out`` the deltas that ``text`` completes."""
        if self._reasoned or self._buffer or "<" in text:
            self._split(text, out)
            self.idle = not (self._buffer or self._thinking or self._bare)
        elif text:
            self.idle = True
            self._bare = False
            out.append(TextDelta(text))

    def _split(self, text: str, out: list[Event]) -> None:
        text = self._buffer + text
        self._buffer = ""
        begin = 0  # a remainder per tag would copy the text once per tag
        while begin < len(text):
            tag = CLOSE if self._thinking else OPEN
            at = text.find(tag, begin) if self._thinking or self._blocks < MAX_BLOCKS else -1
            if at < 0:
                end = len(text) - _partial(text, tag)
                self._buffer = text[end:]
                self._emit(text[begin:end], out)
                return
            if at > begin:
                self._emit(text[begin:at], out)
            begin = at + len(tag)
            self._thinking = not self._thinking
            self._blocks += self._thinking
            self._fresh = self._thinking
            self._reasoned = True

    def close(self, out: list[Event]) -> None:
        """Emit the buffered text: the beginning of a tag that was never completed."""
        if rest := self._buffer:
            self._buffer = ""
            self._emit(rest, out)

    def reason(self, text: str, out: list[Event]) -> None:
        """Emit reasoning that Dify separated from the answer."""
        if self._fresh and text:
            text = text.removeprefix("\n")
            self._fresh = False
        if text:
            self._reasoned = True
            out.append(ReasoningDelta(text))

    def _emit(self, text: str, out: list[Event]) -> None:
        if self._thinking:
            self.reason(text, out)
            return
        if self._bare:
            if self._reasoned:
                text = text.lstrip("\r\n")
            self._bare = not text
        if text:
            out.append(TextDelta(text))


def without_thinking(text: str) -> str:
    """Return the visible part of a complete text."""
    if "<" not in text or OPEN not in text:  # a search for one character is much faster
        return text
    visible = _BLOCK.sub("", text)
    return visible.lstrip("\r\n") if text.startswith(OPEN) else visible


def _partial(text: str, tag: str) -> int:
    """Return the number of final characters of ``text`` that may begin ``tag``."""
    if "<" not in text[-len(tag) :]:
        return 0
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
