"""A turn's text, assembled from pieces of which Dify sends some twice.

Dify repeats text in two places: a workflow node that is retried sends its text from the beginning, and an agent of 1.16
or later ends its turn with the whole answer that it has streamed already.
"""

from __future__ import annotations


class TextAssembly:
    """The text of a turn as Dify sent it, by the node that sent it.

    ``any`` is true once there was text, ``retried`` once a node was retried.
    """

    __slots__ = ("_attempts", "_parts", "_repeats", "_segment", "any", "retried")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._attempts: dict[str, list[int]] = {}  # a running node's indices into _parts
        self._repeats: dict[str, _Repeat] = {}
        self._segment = 0
        self.any = False
        self.retried = False

    def text(self) -> str:
        return "".join(self._parts)

    def add(self, node: str, text: str) -> str | None:
        """Return the part of ``text`` that is new, or None if a retried node's text differs from its first one.

        In the latter case ``text()`` has the new version already.
        """
        if self._repeats and (repeat := self._repeats.get(node)) is not None:
            return self._add_repeated(node, repeat, text)
        self.any = True
        if node:
            self._attempts.setdefault(node, []).append(len(self._parts))
        self._parts.append(text)
        return text

    def _add_repeated(self, node: str, repeat: _Repeat, text: str) -> str | None:
        repeat.got += text
        if repeat.expected.startswith(repeat.got):
            return ""
        del self._repeats[node]
        if repeat.got.startswith(repeat.expected):
            return self.add(node, repeat.got[len(repeat.expected) :])
        for index in self._attempts.pop(node, ()):
            self._parts[index] = ""
        self.add(node, repeat.got)
        return None

    def begin_retry(self, node: str) -> None:
        """``node_retry``: the node will send its text again."""
        sent = "".join(self._parts[index] for index in self._attempts.get(node, ()))
        if sent:
            self.retried = True
            self._repeats[node] = _Repeat(sent)

    def end_attempt(self, node: str) -> None:
        """``node_finished``: text that the node sends from now on (in a loop, say) is new."""
        self._attempts.pop(node, None)
        self._repeats.pop(node, None)

    def begin_agent_segment(self) -> None:
        """An agent's next step: the text before it may be no part of the final answer."""
        self._segment = len(self._parts)

    def missing_from_agent(self, answer: str) -> str:
        """Return the part of an agent's closing ``answer`` that was not streamed, usually nothing."""
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


class _Repeat:
    """A node that is retried: the text of its first attempt, and the text that it has sent again so far."""

    __slots__ = ("expected", "got")

    def __init__(self, expected: str) -> None:
        self.expected = expected
        self.got = ""
