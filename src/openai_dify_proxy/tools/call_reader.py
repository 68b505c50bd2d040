"""Reads calls from the mark at which the first begins: the part of ``parsing.py`` that is a call, or may become one.

Text is held until the name of a known tool was read, and returned as text if there is none. Arguments in the form of
``design.md`` are emitted while they arrive; every other spelling is collected up to the end of the call.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from openai_dify_proxy.events import TextDelta
from openai_dify_proxy.tools.call_inputs import ArgumentsReader, FreeTextReader
from openai_dify_proxy.tools.call_output import CallOutput
from openai_dify_proxy.tools.envelopes import (
    Envelope,
    Stop,
    arguments_of,
    call_of,
    custom_input,
    repaired_call,
)
from openai_dify_proxy.tools.json_scanner import strict_json
from openai_dify_proxy.tools.spellings import (
    CALL_CLOSERS,
    CALL_KEYS,
    CLOSERS,
    ESCAPED_CLOSERS,
    ESCAPED_OBJECTS,
    ESCAPED_OPENERS,
    HOLD,
    NAMED_ARGUMENTS,
    OPENERS,
    PARAMETERS,
    SPECIAL_TOKENS,
    TICKS,
    Found,
    Mark,
    ToolNames,
    find_first,
    find_mark,
)
from openai_dify_proxy.tools.xml_parameters import ParameterReader, ParameterTypes
from openai_dify_proxy.translate.turn_request import Tool

_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[\s,;，；}\]｝］]+")
_LINE_END = re.compile(r"[ \t]{0,64}\r?\n")
_OPEN_LINE = re.compile(r"[ \t]{0,64}\r?\Z")
_AFTER_CALL = (*OPENERS, *ESCAPED_OPENERS, *CLOSERS, *ESCAPED_CLOSERS, *SPECIAL_TOKENS)

State = Callable[[str, int, bool], int]


class CallReader(CallOutput):
    """Reads one or more calls. ``fenced`` is true if text before a call opened a code fence."""

    def __init__(self, names: ToolNames, new_id: Callable[[], str], *, calls: int = 0) -> None:
        super().__init__(new_id, calls=calls)
        self.fenced = False
        self._names = names
        self._state: State = self._opened
        self._array = False
        self._begun = False  # the call of the envelope has begun
        self._tool = Tool("")
        self._envelope: Envelope | None = None
        self._arguments = ArgumentsReader(enclosed=False)
        self._parameters = ParameterReader()
        self._text = FreeTextReader()
        self._raw: list[str] = []  # collected text

    def open(self, mark: Found, raw: str) -> None:
        """Begin at ``mark``, whose text is ``raw``."""
        self.hold(raw)
        self._envelope = None
        self._raw = []
        if mark.kind in {"escaped", "escaped_object"}:
            self._raw.append(raw[-1] if mark.kind == "escaped" else raw)
            self._state = self._escaped
        elif mark.name:
            tool = self._names.find(mark.name)
            self._state = self._unknown_function if tool is None else self._function
            if tool is None:
                self.skip()
            else:
                self._tool = tool
        else:
            self._array = False
            self._state = self._opened

    def read(self, text: str, at: int, *, final: bool) -> int:
        """Read ``text`` from ``at`` on; return the end of what was read. The caller repeats the rest of it."""
        while at < len(text) and not (self.ended or self.cut):
            state = self._state
            end = state(text, at, final)
            if end == at and self._state == state:
                break
            at = end
        return at

    def close(self, *, reread: bool = False) -> None:
        """End the calls, as the text ended; it was read with ``final``.

        Text behind unclosed parameters is read once more; ``reread`` is true after that.
        """
        envelope = self._envelope
        if self.ended or self.cut or self.skipping or self._state == self._between:
            return
        if self._state == self._read_envelope and envelope is not None:
            if self._begun:
                return
            if envelope.close():
                self._end_envelope(envelope)
        if self._state == self._read_arguments:
            complete = self._arguments.close()
            self._extend()
            self.end_call(complete=complete)
        elif self._state == self._free_text:
            self.end_call(complete=False)
        elif self._state == self._broken_object and "".join(self._raw).rstrip("`~ \t\r\n").endswith("}"):
            self._end_broken_object()
        elif self._state == self._read_parameters and not reread and self._parameters.close():
            self._end_parameters()
            self.read(self._parameters.rest, 0, final=True)
            self.close(reread=True)
        elif self._state != self._between:
            self._reject_cut()

    def _reject_cut(self) -> None:
        """Return a call that is cut off before anything of it was emitted as text."""
        if self.ended:
            return
        name = "" if self._envelope is None or self._envelope.name is None else self._envelope.name
        named = {self._function, self._read_parameters, self._custom_function, self._head_end}
        self.truncated = self._state in named or self._names.find(name) is not None
        self.reject()

    # Before the first call, and between calls

    def _opened(self, text: str, at: int, final: bool) -> int:
        """Expect a call behind its mark."""
        if space := _SPACE.match(text, at):
            self.hold(space[0])
            return space.end()
        character = text[at]
        for marks in (OPENERS, ESCAPED_OBJECTS, TICKS, NAMED_ARGUMENTS):
            found = find_mark(marks, text, at, final=final)
            if found == HOLD:
                return at
            if found is not None:
                return self._begin(found, text, at)
        if character in "{｛":
            self._begin_envelope()
            return at
        if character in "[［" and not self._array:
            self._array = True
            self.hold(character)
            return at + 1
        self.reject()
        return at

    def _begin(self, found: Found, text: str, at: int) -> int:
        if found.kind == "ticks":
            self.fenced = True
            self.hold(text[at : found.end])
            return found.end
        if found.kind != "named":
            self.open(found, text[at : found.end])
            return found.end
        tool = self._names.find(found.name)
        if tool is None or tool.custom:
            self.reject()
            return at
        self._tool = tool
        self._envelope = None
        self._begin_arguments()
        return found.end - 1

    def _between(self, text: str, at: int, final: bool) -> int:
        """Expect the end of a block, a further call, or the end of the text."""
        found = find_mark(TICKS, text, at, final=final)
        if found is not None:
            return at if found == HOLD else found.end
        if separators := _BETWEEN.match(text, at):
            return separators.end()
        if text[at] in "{｛":
            self._begin_envelope()
            return at
        found = find_mark(_AFTER_CALL, text, at, final=final)
        if found == HOLD:
            return at
        if found is None:
            self.cut = text[at] not in "[［`~"
            return at if self.cut else at + 1
        if found.kind in {"block", "function", "invoke", "escaped"}:
            self.open(found, text[at : found.end])
        return found.end

    # Calls as JSON

    def _begin_envelope(self) -> None:
        self._envelope = Envelope()
        self._begun = False
        self._raw = []
        self._state = self._read_envelope

    def _read_envelope(self, text: str, at: int, final: bool) -> int:
        envelope = self._envelope
        assert envelope is not None
        end, stop = envelope.read(text, at)
        if stop is Stop.ARGUMENTS and (self._begun or self.skipping or self._tool.custom):
            end, stop = envelope.read(text, end)
        self.hold(text[at:end])
        if not self._begun:
            self._raw.append(text[at:end])
        if stop is Stop.NAME and not self._begun and not self.skipping:
            self._tool = self._names.find(str(envelope.name)) or Tool("")
            if not self._tool.name:
                self.skip()
        elif stop is Stop.ARGUMENTS:
            self._begin_arguments()
        elif stop in {Stop.END, Stop.BROKEN}:
            self._leave_envelope(envelope, stop)
        return end

    def _leave_envelope(self, envelope: Envelope, stop: Stop) -> None:
        if self.skipping:
            self.ended = True
        elif self._begun:
            self._state = self._between
        elif stop is Stop.END:
            self._end_envelope(envelope)
        elif envelope.key in CALL_KEYS:
            self._state = self._broken_object
        else:
            self.reject()

    def _end_envelope(self, envelope: Envelope) -> None:
        """Emit the call of a complete object."""
        call = call_of(envelope.fields)
        tool = None if call is None else self._names.find(call.name)
        if call is None or tool is None:
            self.reject()
        elif tool.custom and call.arguments is None:
            self._tool = tool
            self._state = self._head_end
        else:
            self._emit(tool, arguments_of(tool, call))

    def _begin_arguments(self) -> None:
        self.begin_call(self._tool)
        self._arguments = ArgumentsReader(enclosed=self._envelope is not None)
        self._state = self._read_arguments

    def _read_arguments(self, text: str, at: int, final: bool) -> int:
        end = self._arguments.read(text, at, final=final)
        self._extend()
        if self._arguments.done:
            self._end_call()
            if self._envelope is not None and not self._arguments.broken:
                self._begun = True
                self._envelope.skip_value()
                self._state = self._read_envelope
        return end

    def _extend(self) -> None:
        self.extend_call("".join(self._arguments.out))
        self._arguments.out.clear()

    def _broken_object(self, text: str, at: int, final: bool) -> int:
        """Collect an object that is broken before its call has begun."""
        end, found = self._collect(CLOSERS, text, at, final=final)
        if found is not None:
            self._end_broken_object()
        return end

    def _end_broken_object(self) -> None:
        call = repaired_call("".join(self._raw))
        tool = None if call is None else self._names.find(call.name)
        if call is None or tool is None or (tool.custom and call.arguments is None):
            self.reject()
        else:
            self._emit(tool, arguments_of(tool, call))

    # Calls with the name in their mark

    def _function(self, text: str, at: int, final: bool) -> int:
        """Expect arguments behind ``<function=name>`` or ``<invoke name="name">``."""
        if space := _SPACE.match(text, at):
            self._raw.append(space[0])
            self.hold(space[0])
            return space.end()
        if self._tool.custom:
            marks: Sequence[Mark] = PARAMETERS
        else:
            marks = (*PARAMETERS, *CLOSERS)
        found = find_mark(marks, text, at, final=final)
        if found == HOLD:
            return at
        if found is not None and found.kind == "parameter":
            self._parameters = ParameterReader()
            self._state = self._read_parameters
        elif found is not None:
            self._emit(self._tool, "{}")
            return found.end
        elif self._tool.custom:
            self._state = self._custom_function
        elif text[at] in "{｛":
            self._begin_arguments()
        else:
            self.reject()
        return at

    def _read_parameters(self, text: str, at: int, final: bool) -> int:
        end = self._parameters.read(text, at, final=final)
        self.hold(text[at:end])
        if self._parameters.done:
            self._end_parameters()
        return end

    def _end_parameters(self) -> None:
        values = self._parameters.values
        if not self._tool.custom:
            self._emit(self._tool, ParameterTypes(self._tool).arguments(values))
        elif len(values) == 1:
            self._emit(self._tool, values[0][1])
        else:
            self.reject()

    def _custom_function(self, text: str, at: int, final: bool) -> int:
        end, found = self._collect(CALL_CLOSERS, text, at, final=final)
        if found is not None:
            raw = "".join(self._raw)
            line_end = _LINE_END.match(raw)
            written = strict_json(raw) if raw.lstrip().startswith(("{", '"')) else None
            text = raw[line_end.end() if line_end else 0 :]
            self._emit(self._tool, text if written is None else custom_input(written))
        return end

    def _unknown_function(self, text: str, at: int, final: bool) -> int:
        end, found = find_first(CALL_CLOSERS, text, at, final=final)
        end = end if found is None else found.end
        if end > at:
            self.out.append(TextDelta(text[at:end]))
        self.ended = found is not None
        return end

    # The free text of a custom tool

    def _head_end(self, text: str, at: int, final: bool) -> int:
        """Read the line break between ``{"name": "apply_patch"}`` and the free text."""
        if not final and _OPEN_LINE.match(text, at):
            return at
        self.begin_call(self._tool)
        self._text = FreeTextReader()
        self._state = self._free_text
        line_end = _LINE_END.match(text, at)
        return line_end.end() if line_end else at

    def _free_text(self, text: str, at: int, final: bool) -> int:
        end = self._text.read(text, at, final=final)
        self.extend_call("".join(self._text.out))
        self._text.out.clear()
        if self._text.done:
            self._end_call()
        return end

    # Calls with HTML escapes

    def _escaped(self, text: str, at: int, final: bool) -> int:
        """Collect ``{&quot;name&quot;: …}`` up to its closing mark, and read it without the escapes."""
        end, found = self._collect((*ESCAPED_CLOSERS, *CLOSERS), text, at, final=final)
        if found is None:
            return end
        raw = "".join(self._raw)
        if "&" in raw and ("&quot;" not in raw or '"' in raw):  # it is unclear whether the text was escaped
            self.reject()
            return end
        inner = CallReader(self._names, self._new_id, calls=self.calls)
        inner.read(html.unescape(raw) + "</tool_call>", 0, final=True)
        inner.close()
        if inner.calls == self.calls or inner.cut or inner.truncated:
            self.reject()
            return end
        self.out += inner.out
        self.calls = inner.calls
        self._state = self._between
        return found.end

    def _collect(self, marks: Sequence[Mark], text: str, at: int, *, final: bool) -> tuple[int, Found | None]:
        end, found = find_first(marks, text, at, final=final)
        self._raw.append(text[at:end])
        self.hold(text[at:end])
        return end, found

    def _end_call(self) -> None:
        self.end_call(complete=True)
        self._state = self._between

    def _emit(self, tool: Tool, arguments: str) -> None:
        self.emit_call(tool, arguments)
        self._state = self._between
