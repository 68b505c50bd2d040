"""Splits ``<think>`` blocks off a text that arrives in pieces, wherever the pieces are cut.

Models that reason aloud reach Dify's clients with their reasoning inside the answer. White space around a block
belongs to the mark-up: a line break right after ``<think>`` is dropped, and so are those between ``</think>`` and
the first visible character of the answer.
"""

from __future__ import annotations

from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta

OPEN, CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Turns text into ``TextDelta`` and ``ReasoningDelta``; at most the length of a tag is held back.

    While ``idle`` is true a text without ``<`` is visible as it is, and need not be fed.
    """

    __slots__ = ("_bare", "_fresh", "_held", "_reasoned", "_thinking", "idle")

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._fresh = True  # a piece of reasoning begins
        self._reasoned = False
        self._bare = True  # nothing visible was said yet
        self.idle = False

    def feed(self, text: str, out: list[Event]) -> None:
        """Appends to ``out`` what ``text`` settles."""
        self._split(text, out)
        self.idle = not (self._held or self._thinking or self._bare)

    def _split(self, text: str, out: list[Event]) -> None:
        text = self._held + text
        self._held = ""
        while text:
            tag = CLOSE if self._thinking else OPEN
            at = text.find(tag)
            if at < 0:
                keep = _partial(text, tag)
                self._held = text[len(text) - keep :] if keep else ""
                self._say(text[: len(text) - keep] if keep else text, out)
                return
            self._say(text[:at], out)
            text = text[at + len(tag) :]
            self._thinking = not self._thinking
            self._fresh = self._thinking
            self._reasoned = True

    def close(self, out: list[Event]) -> None:
        """Settles what was held back: a tag that never became one."""
        held, self._held = self._held, ""
        self._say(held, out)

    def reason(self, text: str, out: list[Event]) -> None:
        """Reasoning that Dify itself told apart from the answer."""
        if self._fresh and text:
            text = text.removeprefix("\n")
            self._fresh = False
        if text:
            self._reasoned = True
            out.append(ReasoningDelta(text))

    def _say(self, text: str, out: list[Event]) -> None:
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
    """The visible part of a whole text."""
    out: list[Event] = []
    splitter = ThinkSplitter()
    splitter.feed(text, out)
    splitter.close(out)
    return "".join(event.text for event in out if isinstance(event, TextDelta))


def _partial(text: str, tag: str) -> int:
    """How many last characters of ``text`` may be the beginning of ``tag``."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
