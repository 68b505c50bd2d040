"""Finds the tool calls in a model's text: text in, events out, in pieces that may be cut anywhere.

Text streams at once; only characters that may begin a call are held back. A call streams once its name and the opening
of its arguments were read, as in ``call_reader.py``. Calls inside code fences are text, with one exception: a fence, or
JSON without any mark, is a call if a call was forced or if the answer consists of nothing else. Such an answer is held
back until it ends or turns out to be something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from openai_dify_proxy.events import Event, TextDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted, merge_deltas
from openai_dify_proxy.tools.call_reader import CallReader
from openai_dify_proxy.tools.spellings import (
    ANY_OPENERS,
    BARE_HEADS,
    CALL_FENCES,
    CALL_KEYS,
    FENCES,
    HOLD,
    LESS,
    Found,
    Mark,
    ToolNames,
    find_mark,
)
from openai_dify_proxy.translate.turn_request import Tool

MAX_HELD = 262144
"""The longest answer, in characters, that is held back because it may be a call without a mark."""

_SPECIAL = re.compile(f"[{LESS}\\[{{｛［&`~]")
_WORD = r"(?i:t(?:o|\Z)|f(?:u|\Z)|i(?:n|\Z)|[a-z]{1,16}(?::|\Z))"
"""The beginnings of the words in marks, or a namespace."""
_IN_LINE = re.compile(
    rf"[{LESS}](?=\s{{0,2}}(?:{_WORD}|\||\Z))|\[(?=[tT]|\Z)|&(?=[lL]|\Z)|(?P<line>\n[ \t]*+)(?=[\[{{｛［`~])"
)
"""What may begin a mark behind other text of its line, or the beginning of a line that may begin with a mark."""
_FENCE_SPECIAL = re.compile(r"[`~]")


class CallParser:
    """Turns the text of an answer into ``TextDelta`` and the events of its calls.

    ``cut`` is true once text follows the last call: the rest is dropped, and the caller stops the run. ``truncated``
    means that the answer ended within a call; a call that had begun then lacks its ``ToolCallFinished``, and one that
    had not is text. White space before the first call is dropped if there is no other text.
    """

    def __init__(self, tools: Sequence[Tool], *, new_id: Callable[[], str], forced: bool = False) -> None:
        self.cut = False
        self.truncated = False
        self._tools = tuple(tools)
        self._names = ToolNames(tools)
        self._new_id = new_id
        self._forced = forced
        self._out: list[Event] = []
        self._rest = ""
        self._bare = True  # the answer is white space so far
        self._leading: list[str] = []
        self._blank_line = True  # so is its last line
        self._fence: Mark | None = None  # the end of the code fence around the text
        self._reader: CallReader | None = None
        self._reader_fence = ""  # the fence in which the reader began
        self._candidate: list[str] | None = None  # the text of calls that count only if nothing follows
        self._candidate_size = 0
        self._reasoning: list[str] = []

    def feed(self, text: str) -> list[Event]:
        """Return the events that ``text`` completes."""
        if text.strip():
            self._reasoning.clear()
        if not self.cut:
            self._read(text, final=False)
        return self._taken()

    def feed_reasoning(self, text: str) -> None:
        """Take reasoning, which is no part of the text; a call in it counts if no visible text follows."""
        self._reasoning.append(text)

    @property
    def reading(self) -> bool:
        """Whether the last text belongs to a call, or to what may become one."""
        return self._reader is not None

    def flush(self) -> list[Event]:
        """Return the events of text that is held back, since another text follows it."""
        self._read("", final=True)
        return self._taken()

    def finish(self) -> list[Event]:
        """Return the last events, as the text ended."""
        self._read("", final=True)
        reader = self._reader
        if reader is not None and not self.cut:
            reader.close()
            self._end_calls(reader)
        if self._reasoning and not (self.cut or self.truncated or self._reader):
            self._read_reasoning()
        if self._leading:
            self._out.append(TextDelta("".join(self._leading)))
            self._leading.clear()
        return self._taken()

    def _taken(self) -> list[Event]:
        events, self._out = self._out, []
        return merge_deltas(events) if len(events) > 1 else events

    def _read(self, text: str, *, final: bool) -> None:
        text = self._rest + text
        at = 0
        while at < len(text) and not self.cut:
            end = self._step(text, at, final=final)
            if end < 0:
                break
            at = end
        self._rest = "" if self.cut else text[at:]

    def _step(self, text: str, at: int, *, final: bool) -> int:
        """Read one part of ``text`` at ``at``; return its end, or -1 if more text is needed."""
        if self._reader is not None:
            return self._read_calls(self._reader, text, at, final=final)
        if self._fence is not None:
            special = _FENCE_SPECIAL.search(text, at)
        else:
            special = (_SPECIAL if self._blank_line else _IN_LINE).search(text, at)
        end = len(text) if special is None else special.end() if special.lastgroup else special.start()
        if end > at:
            self._emit_text(text[at:end])
            return end
        found = self._find(text, at, final=final)
        if found == HOLD:
            return -1
        if found is None:
            self._emit_text(text[at])
            return at + 1
        return self._begin(found, text, at)

    def _find(self, text: str, at: int, *, final: bool) -> Found | Literal["hold"] | None:
        if self._fence is not None:
            return find_mark((self._fence,), text, at, final=final) if self._blank_line else None
        unmarked = self._blank_line and (self._forced or self._bare)
        if text[at] in "`~":  # at the beginning of a line, see _IN_LINE
            marks = [CALL_FENCES, FENCES] if unmarked else [FENCES]
        else:
            marks = [ANY_OPENERS] if text[at] not in "{｛［" else []
            marks += [BARE_HEADS] if unmarked else []
        for group in marks:
            found = find_mark(group, text, at, final=final)
            if found == HOLD or (found is not None and (not found.key or found.key in CALL_KEYS)):
                return found
        return None

    def _begin(self, found: Found, text: str, at: int) -> int:
        """Begin what the mark ``found`` begins: a code fence, its end, or a call."""
        match found.kind:
            case "fence_end":
                self._fence = None
            case "fence":
                self._fence = _fence_end(found.ticks)
            case _:
                return self._begin_calls(found, text, at)
        self._emit_text(text[at : found.end])
        return found.end

    def _begin_calls(self, found: Found, text: str, at: int) -> int:
        self._reader = reader = CallReader(self._names, self._new_id)
        self._reader_fence = found.ticks
        unmarked = found.kind in {"json", "marked", "bare"}
        self._candidate = [] if unmarked and not self._forced else None
        self._candidate_size = 0
        if not unmarked:
            reader.open(found, text[at : found.end])
            return found.end
        end = text.index("\n", at) + 1 if found.ticks else at
        if found.ticks:
            self._note(text[at:end])
            reader.open(Found("block", end), text[at:end])
        return end

    def _read_calls(self, reader: CallReader, text: str, at: int, *, final: bool) -> int:
        whole = len(text)
        if self._candidate is not None:
            text = text[: at + MAX_HELD - self._candidate_size]
        end = reader.read(text, at, final=final and len(text) == whole)
        self._note(text[at:end])
        if self._candidate is None:
            self._pass_on(reader)
        elif reader.ended or reader.cut or reader.skipping or (end == at and len(text) < whole):
            self._release(self._candidate, reader)
        return -1 if end == at and self._reader is reader and not self.cut else end

    def _note(self, text: str) -> None:
        if self._candidate is not None:
            self._candidate.append(text)
            self._candidate_size += len(text)

    def _release(self, candidate: list[str], reader: CallReader) -> None:
        """Emit the text of calls that do not count."""
        text = "".join(candidate)
        self._candidate = None
        reader.out.clear()
        if reader.skipping and not reader.ended:
            self._emit_text(text)
            return
        self._reader = None
        if self._reader_fence:
            end = _fence_end(self._reader_fence)
            lines = text.split("\n")[1:-1]
            self._fence = None if any(end.whole.match(line.lstrip(" \t") + "\n") for line in lines) else end
        self._emit_text(text)

    def _pass_on(self, reader: CallReader) -> None:
        for event in reader.out:
            if isinstance(event, TextDelta):
                self._emit_text(event.text)
            else:
                self._leading.clear()
                self._out.append(event)
        reader.out.clear()
        self.cut = reader.cut
        if reader.ended:
            self._reader = None
            fence = self._reader_fence or ("```" if reader.fenced else "")
            self._fence = _fence_end(fence) if fence else None

    def _end_calls(self, reader: CallReader) -> None:
        self.truncated = reader.truncated
        if self._candidate is not None and (reader.truncated or not reader.calls):
            self._release(self._candidate, reader)
        else:
            self._candidate = None
            self._pass_on(reader)

    def _read_reasoning(self) -> None:
        """Emit the calls that the model wrote in its reasoning."""
        inner = CallParser(self._tools, new_id=self._new_id, forced=self._forced)
        events = inner.feed("".join(self._reasoning)) + inner.finish()
        calls = [event for event in events if isinstance(event, ToolCallStarted | ToolCallDelta | ToolCallFinished)]
        if calls and not inner.truncated:
            self._leading.clear()
            self._out += calls

    def _emit_text(self, text: str) -> None:
        if not text:
            return
        _, line_break, line = text.rpartition("\n")
        self._blank_line = (bool(line_break) or self._blank_line) and not line.strip(" \t")
        if self._bare:
            self._leading.append(text)
            if text.isspace():
                return
            self._bare = False
            text = "".join(self._leading)
            self._leading.clear()
        self._out.append(TextDelta(text))


def _fence_end(ticks: str) -> Mark:
    """Return the mark that ends a code fence which ``ticks`` began."""
    return Mark("fence_end", *ticks[1:], f"{ticks[0]}{{1,16}}", r"[ \t]{0,64}", r"\r?", r"\n")
