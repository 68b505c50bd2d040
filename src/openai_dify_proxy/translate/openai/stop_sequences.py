"""OpenAI's ``stop``, which Dify does not know: the answer is cut before the first stop sequence."""

from __future__ import annotations

from collections.abc import Sequence

from openai_dify_proxy.events import Event, TextDelta, TextReplaced, TurnFailed, TurnFinished


class StopSequences:
    """Filters a turn's events. After the filter ends the turn itself, ``hit`` is true.

    Text that may be the beginning of a stop sequence is held back until it is known.
    """

    __slots__ = ("_held", "_sequences", "hit")

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequences)
        self._held = ""
        self.hit = False

    def filter(self, events: Sequence[Event]) -> list[Event]:
        """The events that the client may see; the last is ``TurnFinished`` when a sequence was met."""
        out: list[Event] = []
        for event in events:
            match event:
                case TextDelta(text):
                    self._feed(text, out)
                case TextReplaced(text, moderated):
                    out.append(TextReplaced(self._settled(text), moderated))
                case TurnFinished(reason, usage, answer):
                    self._flush(out)
                    out.append(TurnFinished(reason, usage, None if answer is None else self._cut(answer)))
                case TurnFailed():
                    self._flush(out)
                    out.append(event)
                case _:
                    out.append(event)
            if self.hit:
                out.append(TurnFinished("stop"))
                break
        return out

    def _feed(self, text: str, out: list[Event]) -> None:
        text = self._settled(self._held + text)
        if text:
            out.append(TextDelta(text))

    def _settled(self, text: str) -> str:
        """What of ``text`` can be said: all before a stop sequence, or before what may be the beginning of one."""
        at = self._find(text)
        if at is not None:
            self.hit = True
            self._held = ""
            return text[:at]
        keep = self._partial(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _flush(self, out: list[Event]) -> None:
        if self._held:
            out.append(TextDelta(self._held))
            self._held = ""

    def _find(self, text: str) -> int | None:
        """Where to cut: at the sequence that is complete first, which is the same however the text is split."""
        found = [(at + len(sequence), at) for sequence in self._sequences if (at := text.find(sequence)) >= 0]
        return min(found)[1] if found else None

    def _cut(self, text: str) -> str:
        return text[: self._find(text)]

    def _partial(self, text: str) -> int:
        """How many last characters of ``text`` may begin a stop sequence."""
        longest = max(map(len, self._sequences)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(sequence.startswith(text[-size:]) for sequence in self._sequences):
                return size
        return 0
