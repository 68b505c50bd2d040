"""The text of an answer as events, without repeated text, with separated reasoning and applied replacements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from msgspec import field, structs

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import AgentThoughtDelta, Event, FixedTextDelta, ReasoningDelta, TextDelta, TextReplaced
from openai_dify_proxy.translate.dify.dedupe import TextAssembly
from openai_dify_proxy.translate.think import ThinkSplitter, without_thinking
from openai_dify_proxy.wire.complexity import TooComplex

MAX_RESTATED_TEXT = 64 * 1024 * 1024
"""Characters that all replacements after node retries may have together. Each one repeats the whole text."""

_FORM = ("", "form")
"""The variable of text that no node sends."""


class AnswerText(Entity):
    """Turns the text of Dify's events into ``TextDelta``, ``ReasoningDelta`` and ``TextReplaced``.

    ``agent_streams`` is true once text came in ``agent_message`` events, ``moderated`` once a moderation has replaced
    the text. ``final`` is the visible text of the whole answer if it differs from the sum of the deltas.
    ``lost`` is true if a part of the text is missing.
    ``separate_fixed`` enables ``FixedTextDelta`` for text that is not a model's, and ``AgentThoughtDelta``.
    ``joins`` is true while pieces of text from the same variable may be added as one: none of them can be a repetition.
    """

    separate_fixed: bool = False
    joins: bool = True
    agent_streams: bool = False
    moderated: bool = False
    final: str | None = None
    lost: bool = False
    _assembly: TextAssembly = field(default_factory=TextAssembly)
    _restated: int = 0
    _think: ThinkSplitter = field(default_factory=ThinkSplitter)
    _thoughts: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self._assembly.text()

    def missing_from_agent(self, name: str, text: str) -> str:
        """Return the part of an event's ``text`` that was not streamed yet; ``name`` is the event's.

        An agent of 1.16 streams ``agent_message`` events, and repeats their text in a closing ``message``.
        """
        if name == "message":
            return self._assembly.missing_from_agent(text)
        if name == "agent_message":
            self.agent_streams = True
            self.joins = False
        return text

    def add(self, selector: Sequence[str] | None, text: str, out: list[Event]) -> None:
        """Add the text of the variable ``selector``: a node and a name, which is ``text`` for a model's text.

        Raises TooComplex if nodes are retried too often with too much text.
        """
        new = self._assembly.add(selector[0] if selector else "", text)
        if new:
            if self.separate_fixed and selector and selector[-1] != "text":
                self._think.close(out)  # text before it that might have begun a tag
                out.append(FixedTextDelta(new))
            elif self._think.idle and "<" not in new:
                out.append(TextDelta(new))
            else:
                self._think.feed(new, out)
        elif new is None:
            whole = self._assembly.text()
            self._restated += len(whole)
            if self._restated > MAX_RESTATED_TEXT:
                raise TooComplex("nodes are retried too often")
            self._restate(whole, False, out)

    def add_paragraph(self, text: str, out: list[Event]) -> None:
        """Add text that is not a model's, behind an empty line."""
        AnswerText.add(self, _FORM, f"\n\n{text}" if self._assembly.any else text, out)

    def add_reasoning(self, text: str, out: list[Event]) -> None:
        """Add reasoning that Dify separated from the answer."""
        self._think.reason(text, out)

    def add_thought(self, key: str, thought: str, is_reasoning: bool, out: list[Event]) -> None:
        """Add an agent's thought. Dify sends a growing thought several times under the same ``key``."""
        known = self._thoughts.get(key)
        if known is None:
            self._assembly.begin_agent_segment()
            known = ""
        if is_reasoning and thought.startswith(known) and len(thought) > len(known):
            self._reason(thought[len(known) :], out)
        self._thoughts[key] = thought

    def _reason(self, text: str, out: list[Event]) -> None:
        """Add reasoning of an agent, which may name the tools of its own."""
        parts: list[Event] = []
        self._think.reason(text, parts)
        kind = AgentThoughtDelta if self.separate_fixed else ReasoningDelta
        out += [kind(part.text) for part in parts if isinstance(part, ReasoningDelta)]

    def replace(self, text: str, moderated: bool, out: list[Event]) -> None:
        """Replace all earlier text by ``text`` (``message_replace``)."""
        self.moderated = self.moderated or moderated
        self.final = None
        self._assembly.restart(text)
        self._restate(text, moderated, out)

    def _restate(self, text: str, moderated: bool, out: list[Event]) -> None:
        """Emit ``text`` as the replacement of all earlier text. It may end inside an open ``<think>`` block."""
        self._think = ThinkSplitter()
        parts: list[Event] = []
        self._think.feed(text, parts)
        out.append(TextReplaced("".join(part.text for part in parts if isinstance(part, TextDelta)), moderated))

    def begin_retry(self, node: str) -> None:
        self._assembly.begin_retry(node)
        self.joins = self.joins and not self._assembly.retried

    def end_attempt(self, node: str) -> None:
        self._assembly.end_attempt(node)

    def settle(self, answer: str, out: list[Event], *, is_whole: bool) -> None:
        """Read the answer in a run's outputs. ``is_whole`` means that it is the whole text of the turn.

        After a moderation it is ignored: the outputs still hold the unmoderated text.
        """
        if not answer or self.moderated:
            return
        if not self._assembly.any:
            self.add(None, answer, out)
        elif self._assembly.retried and is_whole:
            self.final = without_thinking(answer)

    def close(self, out: list[Event]) -> None:
        """Emit text that was buffered because it might have begun a tag."""
        if not self._think.idle:
            self._think.close(out)


class ResumedText(AnswerText):
    """The text of a turn whose stream broke off, while the events of its run are read from another stream.

    The text between the two streams is missing, so text events do not count: the rest is that of the run's outputs.
    """

    @classmethod
    def after(cls, before: AnswerText) -> Self:
        """Return the text that continues ``before``, with its state."""
        return cls(*structs.astuple(before))

    def add(self, selector: Sequence[str] | None, text: str, out: list[Event]) -> None:
        """Ignore text events."""

    def replace(self, text: str, moderated: bool, out: list[Event]) -> None:
        """Apply a moderation. Ignore the text so far, with which a snapshot of the run begins."""
        if moderated:
            super().replace(text, moderated, out)

    def add_reasoning(self, text: str, out: list[Event]) -> None:
        """Ignore reasoning, whose beginning may be missing."""

    def begin_retry(self, node: str) -> None:
        """Ignore retries: the outputs have the final text."""

    def end_attempt(self, node: str) -> None:
        """Ignore ends of attempts."""

    def settle(self, answer: str, out: list[Event], *, is_whole: bool) -> None:
        """Emit what ``answer`` has beyond the text so far. The text is lost if it is no prefix of ``answer``."""
        sent = str(self)
        if self.moderated:
            return
        if not answer.startswith(sent):
            self.lost = True
        elif rest := answer[len(sent) :]:
            super().add(None, rest, out)


class WaitingText(ResumedText):
    """The text of a turn that resumes a paused run, until the run's events begin; an earlier turn has the text so far.

    It stays so if the beginning of these events is missing, or if the turn only shows the form again.
    """

    def replace(self, text: str, moderated: bool, out: list[Event]) -> None:
        """Ignore the text so far, with which a snapshot of the run begins."""
