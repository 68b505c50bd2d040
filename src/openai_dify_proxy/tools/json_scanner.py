"""Finds the end of a JSON value that arrives in pieces, and writes it as strict JSON while it arrives.

Strict JSON passes unchanged to the character. Models also write a relaxed JSON whose meaning is clear, and the scanner
replaces only what differs: quotes other than ``"``, keys without quotes, full-width brackets, Python's ``True``,
``False`` and ``None``, control characters and unknown escapes in strings, and trailing commas. Anything else breaks the
value: ``broken`` is set, and nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Literal

MAX_DEPTH = 128
MAX_WORD = 4096
"""The longest number, literal or key without quotes, in characters."""

QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "＂": "＂"}
"""Closing quotes by opening quotes."""

_OPEN = {"{": "{", "[": "[", "｛": "{", "［": "["}
_CLOSE = {"}": "{", "]": "[", "｝": "{", "］": "["}
_CLOSER = {"{": "}", "[": "]"}
_COLONS, _COMMAS = ":：", ",，"
_SPACE = re.compile(r"\s+")
_FOREIGN_SPACE = re.compile(r"[^ \t\r\n]")
_WORD = re.compile(r"[\w+\-.$]+")
_KEY = re.compile(r"(?:[^\W\d]|\$)[\w\-.$]*\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_LITERALS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_PLAIN = {quote: re.compile(rf'[^"\\\x00-\x1f{quote}]+') for quote in QUOTES.values()}
_ESCAPES = '"\\/bfnrt'
_CONTROLS = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_HEX = frozenset("0123456789abcdefABCDEF")

_Expected = Literal["value", "key", "colon", "comma"]


class JsonScanner:
    """Reads one JSON value. ``done`` is true behind its last character, ``broken`` at the first that does not fit.

    A scanner of a ``key`` reads a string or a word, and writes a string. ``out`` collects the strict JSON; the caller
    may empty it. ``held`` is the closing quote and the white space behind a value, which wait for the next token: if
    that breaks the value, the quote may have been meant as a part of the string.
    """

    __slots__ = (
        "_closing",
        "_comma",
        "_escape",
        "_expected",
        "_opened",
        "_stack",
        "_word",
        "broken",
        "done",
        "held",
        "out",
    )

    def __init__(self, *, key: bool = False) -> None:
        self.out: list[str] = []
        self.held: list[str] = []
        self.done = False
        self.broken = False
        self._stack: list[str] = []
        self._expected: _Expected = "key" if key else "value"
        self._opened = False  # the innermost container is empty so far
        self._comma: list[str] | None = None  # a comma, and the white space behind it
        self._closing: str | None = None  # within a string: its closing quote
        self._escape = ""  # within a string: an escape that is not complete
        self._word: str | None = None

    def scan(self, text: str, at: int) -> int:
        """Read ``text`` from ``at`` on, and return the end of what was read."""
        while at < len(text) and not (self.done or self.broken):
            if self._closing is not None:
                at = self._scan_string(text, at, self._closing)
            elif self._word is not None:
                at = self._scan_word(text, at, self._word)
            else:
                at = self._scan_token(text, at)
        return at

    def close(self) -> bool:
        """Complete a value whose text ended, and return whether only closing brackets were missing.

        Nothing is written for a value that ended within a string, a number, a member or an empty container.
        """
        if self.done or self.broken:
            return self.done
        if self._expected == "value" and self._word in _LITERALS:
            self._end_word(self._word)
        cut = self._word is not None or self._closing is not None or self._comma is not None or self._opened
        if cut or self._expected != "comma":
            return self.done
        self._release()
        self.out.append("".join(_CLOSER[bracket] for bracket in reversed(self._stack)))
        self.done = True
        return True

    def _scan_token(self, text: str, at: int) -> int:
        if match := _SPACE.match(text, at):
            waiting = self.held if self._expected in {"comma", "colon"} else self.out
            (waiting if self._comma is None else self._comma).append(_FOREIGN_SPACE.sub(" ", match[0]))
            return match.end()
        character = text[at]
        if character in _CLOSE:
            self._close_container(_CLOSE[character])
        elif self._expected == "comma":
            if character in _COMMAS:
                self._release()
                self._comma = [","]
                self._expected = "key" if self._stack[-1] == "{" else "value"
            else:
                self.broken = True
        elif self._expected == "colon":
            if character in _COLONS:
                self._release()
                self.out.append(":")
                self._expected = "value"
            else:
                self.broken = True
        else:
            self._begin(character)
            if self._word is not None:
                return at
        return at if self.broken else at + 1

    def _begin(self, character: str) -> None:
        """Begin a key or a value with its first character."""
        container = _OPEN.get(character)
        word = _WORD.match(character)
        if (container is None and word is None and character not in QUOTES) or (
            container is not None and (self._expected == "key" or len(self._stack) == MAX_DEPTH)
        ):
            self.broken = True
            return
        if self._comma is not None:
            self.out += self._comma
            self._comma = None
        self._opened = container is not None
        if container is not None:
            self.out.append(container)
            self._stack.append(container)
            self._expected = "key" if container == "{" else "value"
        elif word is not None:
            self._word = ""
        else:
            self.out.append('"')
            self._closing = QUOTES[character]

    def _close_container(self, bracket: str) -> None:
        inner = self._expected == "comma" or self._opened or self._comma is not None
        if not self._stack or self._stack[-1] != bracket or not inner:
            self.broken = True
            return
        self._release()
        if self._comma is not None:
            self.out += self._comma[1:]
            self._comma = None
        self.out.append(_CLOSER[bracket])
        self._stack.pop()
        self._opened = False
        self._expected = "value"
        self._end_value()

    def _release(self) -> None:
        self.out += self.held
        self.held.clear()

    def _end_value(self) -> None:
        if not self._stack:
            self._release()
            self.done = True
        else:
            self._expected = "colon" if self._expected == "key" and self._stack[-1] == "{" else "comma"

    def _scan_word(self, text: str, at: int, word: str) -> int:
        match = _WORD.match(text, at)
        if match is None:
            self._end_word(word)
            return at
        end = min(match.end(), at + MAX_WORD - len(word))
        self.broken = end == at
        self._word = word + text[at:end]
        return end

    def _end_word(self, word: str) -> None:
        if self._expected == "key":
            written = f'"{word}"' if _KEY.match(word) else None
        else:
            written = word if _NUMBER.match(word) else _LITERALS.get(word)
        if written is None:
            self.broken = True
            return
        self._word = None
        self.out.append(written)
        self._end_value()

    def _scan_string(self, text: str, at: int, closing: str) -> int:
        if self._escape:
            return self._scan_escape(text, at)
        if match := _PLAIN[closing].match(text, at):
            self.out.append(match[0])
            return match.end()
        character = text[at]
        if character == closing:
            self._closing = None
            self.held.append('"')
            self._end_value()
        elif character == "\\":
            self._escape = character
        elif character == '"':
            self.out.append('\\"')
        else:
            self.out.append(_control(character))
        return at + 1

    def _scan_escape(self, text: str, at: int) -> int:
        """Read a character of an escape; a backslash that begins none is one that the model forgot to escape."""
        character = text[at]
        escape = self._escape + character
        if escape == "\\u" or (len(escape) > 2 and len(escape) < 6 and character in _HEX):
            self._escape = escape
            return at + 1
        self._escape, begun = "", self._escape
        if len(escape) == 2:
            if character in _ESCAPES:
                self.out.append(escape)
            elif character in QUOTES or character in QUOTES.values():
                self.out.append(character)
            else:
                self.out.append("\\\\")
                return at
        elif len(escape) == 6 and character in _HEX:
            self.out.append(escape)
        else:
            self.out.append("\\" + begun)
            return at
        return at + 1


def _control(character: str) -> str:
    return _CONTROLS.get(character) or f"\\u{ord(character):04x}"


def strict_json(text: str) -> str | None:
    """Return a whole relaxed JSON value as strict JSON, None if it is none."""
    scanner = JsonScanner()
    text = text.strip()
    if scanner.scan(text, 0) < len(text):
        return None
    scanner.scan(" ", 0)  # ends a number
    return "".join(scanner.out) if scanner.done else None
