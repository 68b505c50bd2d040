"""Assembles a turn's text from pieces, some of which Dify sends twice.

Dify repeats text in two cases: a retried workflow node sends its text from the beginning, and an agent of 1.16 or later
ends its turn with the whole answer that it has streamed already.
"""

from __future__ import annotations

from msgspec import Struct, field

from openai_dify_proxy.entity import Entity

MAX_COMPARED_ANSWERS = 16
"""Closing answers of an agent that are compared with its whole text; Dify sends one per turn."""


class TextAssembly(Entity):
    """The text of a turn, by the node that sent it.

    ``any`` is true once there was text, ``retried`` once a node was retried.
    """

    any: bool = False
    retried: bool = False
    _parts: list[str] = field(default_factory=list)
    _attempts: dict[str, list[int]] = field(default_factory=dict)  # a running node's indices into _parts
    _repeats: dict[str, _Repeat] = field(default_factory=dict)
    _segment: int = 0
    _compared: int = 0

    def text(self) -> str:
        return "".join(self._parts)

    def add(self, node: str, text: str) -> str | None:
        """Return the new part of ``text``, or None if the text of a retried node differs from its first attempt.

        In the latter case ``text()`` already returns the new version.
        """
        if self._repeats and (repeat := self._repeats.get(node)) is not None:
            return self._add_repeated(node, repeat, text)
        self.any = True
        if node:
            self._attempts.setdefault(node, []).append(len(self._parts))
        self._parts.append(text)
        return text

    def _add_repeated(self, node: str, repeat: _Repeat, text: str) -> str | None:
        expected, begin = repeat.expected, repeat.received
        if expected.startswith(text, begin):
            repeat.received += len(text)
            return ""
        del self._repeats[node]
        missing = len(expected) - begin
        if missing < len(text) and text.startswith(expected[begin:]):
            return self.add(node, text[missing:])
        for index in self._attempts.pop(node, ()):
            self._parts[index] = ""
        self.add(node, expected[:begin] + text)
        return None

    def begin_retry(self, node: str) -> None:
        """Expect the node's text again (``node_retry``)."""
        if (repeat := self._repeats.get(node)) is not None:
            repeat.received = 0  # a retry of the retry
            return
        sent = "".join(self._parts[index] for index in self._attempts.get(node, ()))
        if sent:
            self.retried = True
            self._repeats[node] = _Repeat(sent)

    def end_attempt(self, node: str) -> None:
        """Treat later text of the node, for example in a loop, as new (``node_finished``)."""
        self._attempts.pop(node, None)
        self._repeats.pop(node, None)

    def begin_agent_segment(self) -> None:
        """Begin an agent's next step: earlier text may not be part of the final answer."""
        self._segment = len(self._parts)

    def missing_from_agent(self, answer: str) -> str:
        """Return the part of an agent's closing ``answer`` that was not streamed; usually empty.

        Later answers than the first ``MAX_COMPARED_ANSWERS`` count as new text.
        """
        self._compared += 1
        if self._compared > MAX_COMPARED_ANSWERS:
            return answer
        last = "".join(self._parts[self._segment :])
        if answer.startswith(last) and last:
            return answer[len(last) :]
        whole = self.text()
        if whole.rstrip().endswith(answer.strip()):
            return ""
        return answer.removeprefix(whole)

    def restart(self, text: str) -> None:
        """Replace all text by ``text``."""
        self._parts = [text] if text else []
        self._attempts.clear()
        self._repeats.clear()
        self._segment = 0
        self.any = self.any or bool(text)


class _Repeat(Struct):
    """A retried node: the text of its first attempt, and how many characters of it were received again so far."""

    expected: str
    received: int = 0
