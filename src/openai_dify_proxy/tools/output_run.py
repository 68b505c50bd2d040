"""The output of one run: its text so far, and its calls."""

from __future__ import annotations

from msgspec import Struct, field

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted, TurnFinished
from openai_dify_proxy.tools.parsing import CallParser
from openai_dify_proxy.tools.schemas import compile_schema
from openai_dify_proxy.translate.turn_request import Tool
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text


class OutputCall(Struct):
    """A call whose arguments are being read; ``streams`` means that the client receives them as they come."""

    started: ToolCallStarted
    tool: Tool
    streams: bool
    parts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.parts)

    @property
    def is_readable(self) -> bool:
        """Whether the arguments are a JSON object, or free text."""
        if self.tool.custom:
            return True
        try:
            return isinstance(decode_text(self.arguments), dict)
        except UNREADABLE:
            return False

    def check(self) -> bool:
        """Return whether the arguments are valid; set ``errors`` otherwise."""
        if not self.tool.custom:
            if self.tool.parameters is not None:
                self.errors = compile_schema(self.tool.parameters).errors(self.arguments.encode())
            elif not self.is_readable:
                self.errors = ["The arguments are no JSON object."]
        return not self.errors

    def events(self) -> list[Event]:
        index = self.started.index
        return [self.started, ToolCallDelta(index, self.arguments), ToolCallFinished(index)]


class OutputRun(Struct):
    """One run: the text so far (``raw``), and how many of its characters were passed on as text of the answer.

    ``answer`` is the text of a formatted answer, with ``errors`` at its end; ``call`` is the call that is being read,
    ``invalid`` holds the invalid calls. ``fixed`` is text of the app behind what may be a call. A ``superseded`` run
    repeats an answer that the client has already: its text is dropped.
    """

    parser: CallParser
    raw: list[str] = field(default_factory=list)
    passed: int = 0
    answer: list[str] = field(default_factory=list)
    call: OutputCall | None = None
    invalid: list[OutputCall] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    superseded: bool = False

    @property
    def open_call(self) -> OutputCall:
        assert self.call is not None
        return self.call

    def feed(self, text: str) -> list[Event]:
        if self.superseded:
            return []
        self.raw.append(text)
        return self.parser.feed(text)

    def take_fixed(self) -> str:
        text = "".join(self.fixed)
        self.fixed.clear()
        return text


class RejectedRun(Struct, frozen=True):
    """A run with invalid output: the event at its end, its error, and how many calls the client had by then."""

    run: OutputRun
    event: TurnFinished
    error: ProxyError
    calls: int
