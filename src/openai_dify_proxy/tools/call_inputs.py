"""Reads the input of a call that is emitted while it arrives: JSON arguments, or the free text of a custom tool."""

from __future__ import annotations

from openai_dify_proxy.tools.envelopes import repaired_rest
from openai_dify_proxy.tools.json_scanner import JsonScanner
from openai_dify_proxy.tools.spellings import BLOCK_CLOSERS, CLOSERS, HOLD, LESS, NO_MARKS, find_first, find_mark


class ArgumentsReader:
    """Reads a JSON object. ``done`` is true at its end; ``out`` collects the arguments, which the caller takes.

    Broken JSON is collected up to the mark that ends its call, then repaired. If no repair begins with the emitted
    characters, the rest is emitted as written. ``enclosed`` arguments are part of an object, whose end belongs to the
    collected text.
    """

    def __init__(self, *, enclosed: bool) -> None:
        self.out: list[str] = []
        self.done = False
        self._enclosed = enclosed
        self._scanner = JsonScanner()
        self._raw: list[str] = []
        self._sent: list[str] = []
        self._broken: list[str] = []

    @property
    def broken(self) -> bool:
        """Whether the arguments are neither strict nor relaxed JSON."""
        return self._scanner.broken

    def read(self, text: str, at: int, *, final: bool) -> int:
        """Read ``text`` from ``at`` on, and return the end of what was read."""
        if self.broken:
            end, found = find_first(CLOSERS, text, at, final=final)
            self._broken.append(text[at:end])
            if found is not None:
                self._repair()
            return end
        end = self._scanner.scan(text, at)
        self._raw.append(text[at:end])
        self._send_scanned()
        self.done = self._scanner.done
        return end

    def close(self) -> bool:
        """End the arguments as the text ended, and return whether only marks and closing brackets were missing."""
        if not self.broken:
            self.done = self._scanner.close()
            self._send_scanned()
        elif "".join(self._broken).rstrip("`~ \t\r\n").endswith("}"):
            self._repair()
        return self.done

    def _send_scanned(self) -> None:
        self._sent += self._scanner.out
        self.out += self._scanner.out
        self._scanner.out.clear()

    def _repair(self) -> None:
        broken = "".join(self._broken)
        rest = repaired_rest("".join(self._raw) + broken, "".join(self._sent))
        if rest is None:
            rest = broken.rstrip()
            if self._enclosed and rest.endswith("}"):
                rest = rest[:-1].rstrip()
            rest = "".join(self._scanner.held) + rest
        self.out.append(rest)
        self.done = True


class FreeTextReader:
    """Reads free text up to a closing mark that begins or ends a line, or that another mark follows.

    The line break before the mark belongs to the mark.
    """

    def __init__(self) -> None:
        self.out: list[str] = []
        self.done = False
        self._line_start = True
        self._line_break = ""  # the last one, unless text followed it

    def read(self, text: str, at: int, *, final: bool) -> int:
        """Read ``text`` from ``at`` on, and return the end of what was read."""
        plain = NO_MARKS.match(text, at)
        end = at + 1 if plain is None else plain.end()
        found = None if plain else find_mark(BLOCK_CLOSERS, text, at, final=final)
        if found == HOLD:
            return at
        if found is not None:
            following = text[found.end : found.end + 1]
            if not (following or final or self._line_start):
                return at
            if self._line_start or not following or following.isspace() or following in LESS:
                self.done = True
                return found.end
        self._line_start = text[end - 1] == "\n"
        read = self._line_break + text[at:end]
        self._line_break = "\n" if self._line_start else ""
        self.out.append(read[:-1] if self._line_start else read)
        return end
