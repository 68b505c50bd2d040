"""The events of calls, and the text of a call that has not begun."""

from __future__ import annotations

from collections.abc import Callable

from openai_dify_proxy.events import Event, TextDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from openai_dify_proxy.translate.turn_request import Tool


class CallOutput:
    """Collects the events of calls in ``out``, from which the caller takes them.

    ``calls`` counts the calls that have begun. ``ended`` is true when the text is no call, and has been emitted as
    text; ``cut`` when other text follows a call. ``truncated`` means that the text ended within a call, which then has
    no ``ToolCallFinished``. ``skipping`` is true while a call of an unknown tool passes as text.
    """

    def __init__(self, new_id: Callable[[], str], *, calls: int = 0) -> None:
        self.out: list[Event] = []
        self.calls = calls
        self.ended = False
        self.cut = False
        self.truncated = False
        self.skipping = False
        self._new_id = new_id
        self._held: list[str] = []

    def hold(self, text: str) -> None:
        """Hold text that may be part of a call; text behind the beginning of a call is never needed again."""
        if self.skipping:
            self.out.append(TextDelta(text))
        elif not self.calls:
            self._held.append(text)

    def reject(self) -> None:
        """Emit the held text as text, or cut it off if it follows a call."""
        self.cut = bool(self.calls)
        self.ended = not self.cut
        self._release()

    def skip(self) -> None:
        """Emit the held text and the rest of this call as text, or cut both off if they follow a call."""
        self.cut = bool(self.calls)
        self.skipping = not self.cut
        self._release()

    def begin_call(self, tool: Tool) -> None:
        """Begin a call of ``tool``."""
        self.out.append(ToolCallStarted(self.calls, self._new_id(), tool.name, tool.custom))
        self.calls += 1
        self._held.clear()

    def extend_call(self, text: str) -> None:
        """Add ``text`` to the arguments of the current call."""
        if text:
            self.out.append(ToolCallDelta(self.calls - 1, text))

    def end_call(self, *, complete: bool) -> None:
        """End the current call, whose arguments are ``complete`` or cut off."""
        self.truncated = not complete
        if complete:
            self.out.append(ToolCallFinished(self.calls - 1))

    def emit_call(self, tool: Tool, arguments: str) -> None:
        """Emit a whole call."""
        self.begin_call(tool)
        self.extend_call(arguments)
        self.end_call(complete=True)

    def _release(self) -> None:
        if self._held:
            self.out.append(TextDelta("".join(self._held)))
            self._held.clear()
