"""OpenAI's ``stop``, which Dify does not support: cut the answer before the first stop sequence."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from openai_dify_proxy.events import Event, TextDelta, TextReplaced, ToolCallStarted, TurnFailed, TurnFinished


class StopSequences:
    """Filters the events of a turn. ``hit`` is true once a stop sequence has ended the turn.

    Text that may be the start of a stop sequence is held back until more text arrives.
    """

    __slots__ = ("_held", "_sequences", "hit")

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequences)
        self._held = ""
        self.hit = False

    def filter(self, events: Sequence[Event]) -> list[Event]:
        """Return the events for the client; the last is ``TurnFinished`` if a stop sequence was found."""
        out: list[Event] = []
        for event in events:
            match event:
                case TextDelta(text):
                    self._feed(text, out)
                case TextReplaced(text, moderated):
                    out.append(TextReplaced(self._release(text), moderated))
                case TurnFinished(_, _, str(answer)):
                    self._flush(out)
                    out.append(replace(event, answer=self._cut(answer)))
                case TurnFinished() | TurnFailed() | ToolCallStarted():
                    self._flush(out)
                    out.append(event)
                case _:
                    out.append(event)
            if self.hit:
                out.append(TurnFinished("stop"))
                break
        return out

    def _feed(self, text: str, out: list[Event]) -> None:
        text = self._release(self._held + text)
        if text:
            out.append(TextDelta(text))

    def _release(self, text: str) -> str:
        """Return the part of ``text`` before a stop sequence, or before a possible start of one."""
        at = self._find(text)
        if at is not None:
            self.hit = True
            self._held = ""
            return text[:at]
        end = len(text) - self._partial(text)
        self._held = text[end:]
        return text[:end]

    def _flush(self, out: list[Event]) -> None:
        if self._held:
            out.append(TextDelta(self._held))
            self._held = ""

    def _find(self, text: str) -> int | None:
        """Return where to cut: before the sequence that ends first, so that the result is independent of the split."""
        found = [(at + len(sequence), at) for sequence in self._sequences if (at := text.find(sequence)) >= 0]
        return min(found)[1] if found else None

    def _cut(self, text: str) -> str:
        return text[: self._find(text)]

    def _partial(self, text: str) -> int:
        """Return how many characters at the end of ``text`` may start a stop sequence."""
        longest = max(map(len, self._sequences)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(sequence.startswith(text[-size:]) for sequence in self._sequences):
                return size
        return 0
