"""The marks with which models begin and end calls, and the keys and names that they write.

A mark may be cut anywhere, so a ``Mark`` also recognizes its own beginning at the end of a text. All parts of a mark
are bounded, and so is the text that waits for the rest of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

from openai_dify_proxy.translate.turn_request import Tool

NAME_KEYS = frozenset({"name", "tool", "tool_name", "function", "function_name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters", "args", "input", "params", "tool_input"})
OTHER_KEYS = frozenset({"id", "type", "call_id", "index"})
CALL_KEYS = NAME_KEYS | ARGUMENT_KEYS | OTHER_KEYS

LESS = "<＜‹〈⟨﹤❮《"
GREATER = ">＞›〉⟩﹥❯》"
_LT, _GT = f"[{LESS}]", f"[{GREATER}]"
_SPACES = r"\s{0,64}"
_SPACE = r"\s{0,2}"
_NO_MARK = rf"[{LESS}](?!{_SPACE}(?:[/／]{_SPACE})?(?:to|fu|in|pa|\||[a-z]{{1,16}}(?::|\Z)|\Z))"
_NOT_FIRST = re.compile(rf"(?:[^{LESS}&]|{_NO_MARK})+", re.IGNORECASE)
NO_MARKS = re.compile(rf"(?:[^{LESS}]|{_NO_MARK})+", re.IGNORECASE)
"""Characters that begin no mark of a block, a call or a parameter."""
_NAMESPACES: tuple[tuple[str, ...], ...] = ((), ("[a-z]{1,16}", ":"))
_QUOTE = "[\"'“”]?"
_NAME = rf"(?P<name>[^\s\"'“”{LESS}{GREATER}]{{1,128}})"
_SLASH = "[/／]"
_KEY = "(?P<key>[a-z_]{1,16})"
_HEAD = (_SPACES, r"[\[［]?", _SPACES, "[{｛]", _SPACES, "[\"'“]?", _KEY, "[\"'”]?", _SPACES, "[:：]")
_FENCES = [(tick, tick, tick + "{1,14}", r"[^`~\n]{0,64}", r"\n") for tick in "`~"]
_TICKS = re.compile("`+|~+")

HOLD: Final = "hold"
"""The text ends within what may become a mark."""


class Mark:
    """A regular expression as a sequence of atoms, each of which matches a run of single characters."""

    __slots__ = ("atoms", "kind", "partial", "whole")

    def __init__(self, kind: str, *atoms: str) -> None:
        self.kind = kind
        self.atoms = atoms
        self.whole = re.compile("".join(atoms), re.IGNORECASE)
        partial = ""
        for atom in reversed(atoms):
            partial = f"{atom}(?:\\Z|{partial})" if partial else atom
        self.partial = re.compile(partial, re.IGNORECASE)


def _marks(kind: str, *atoms: str, slash: Sequence[str] = ()) -> list[Mark]:
    return [Mark(kind, _LT, *slash, *namespace, *atoms) for namespace in _NAMESPACES]


def _literal(word: str) -> list[str]:
    return [re.escape(character) for character in word]


_WORDS = ([*_literal("tool"), "[_-]?", *_literal("call"), "s?"], [*_literal("function_call"), "s?"])
_BLOCKS = [mark for word in _WORDS for mark in _marks("block", _SPACE, *word, _SPACE, _GT)]
_FUNCTIONS = [
    Mark("function", _LT, *_literal("function"), r"\s{0,4}", "=", _SPACE, _QUOTE, _NAME, _QUOTE, _SPACE, _GT),
    *(
        mark
        for word in ("function", "invoke")
        for mark in _marks(
            word,
            *_literal(word),
            r"\s{1,4}",
            *_literal("name"),
            _SPACE,
            "=",
            _SPACE,
            _QUOTE,
            _NAME,
            _QUOTE,
            _SPACE,
            _GT,
        )
    ),
]
OPENERS: Final[Sequence[Mark]] = (
    *_BLOCKS,
    *_FUNCTIONS,
    Mark("block", r"\[", *_literal("TOOL_CALLS]")),
    Mark("block", _LT, *_literal("|python_tag|"), _GT),
)
"""The beginnings of calls: ``block`` (JSON or a ``function`` follows), and ``function`` or ``invoke`` with a name."""

ESCAPED_OPENERS: Final[Sequence[Mark]] = [
    Mark("escaped", *_literal("&lt;"), *word, *_literal("&gt;"), _SPACES, r"[{\[]") for word in _WORDS
]
ANY_OPENERS: Final[Sequence[Mark]] = (*OPENERS, *ESCAPED_OPENERS)
ESCAPED_CLOSERS: Final[Sequence[Mark]] = [
    Mark("escaped_end", *_literal("&lt;/"), *word, *_literal("&gt;")) for word in _WORDS
]
ESCAPED_OBJECTS: Final[Sequence[Mark]] = (Mark("escaped_object", "{", _SPACES, *_literal("&quot;")),)
BLOCK_CLOSERS: Final[Sequence[Mark]] = [
    mark for word in _WORDS for mark in _marks("block_end", *word, _SPACE, _GT, slash=(_SPACE, _SLASH, _SPACE))
]
CALL_CLOSERS: Final[Sequence[Mark]] = [
    mark
    for word in ("function", "invoke")
    for mark in _marks("call_end", *_literal(word), _SPACE, _GT, slash=(_SLASH,))
]
CLOSERS: Final[Sequence[Mark]] = (*BLOCK_CLOSERS, *CALL_CLOSERS)
PARAMETERS: Final[Sequence[Mark]] = (
    Mark("parameter", _LT, *_literal("parameter"), _SPACE, "=", _SPACE, _QUOTE, _NAME, _QUOTE, _SPACE, _GT),
    *_marks(
        "parameter",
        *_literal("parameter"),
        r"\s{1,4}",
        *_literal("name"),
        _SPACE,
        "=",
        _SPACE,
        _QUOTE,
        _NAME,
        _QUOTE,
        rf"[^{LESS}{GREATER}]{{0,64}}",
        _GT,
    ),
)
PARAMETER_CLOSERS: Final[Sequence[Mark]] = _marks("parameter_end", *_literal("parameter"), _SPACE, _GT, slash=(_SLASH,))
SPECIAL_TOKENS: Final[Sequence[Mark]] = (Mark("special", _LT, r"[|｜]", r"[\w/▁]{1,32}", r"[|｜]", _GT),)
"""Marks of chat templates that some models write at the end, such as ``<|eot_id|>``."""

NAMED_ARGUMENTS: Final[Sequence[Mark]] = (
    Mark("named", r"(?P<name>[\w.\-]{1,128})", _SPACE, *_literal("[ARGS]"), _SPACE, "[{｛]"),
    Mark("named", r"(?P<name>[\w.\-]{1,128})", _SPACE, "[{｛]"),
)
"""A name right in front of the arguments, as in ``[TOOL_CALLS]name{…}``; the match ends behind the brace."""

TICKS: Final[Sequence[Mark]] = [Mark("ticks", tick, tick, tick, "[a-z]{0,10}", r"\s") for tick in "`~"]
"""A code fence inside a block."""

FENCES: Final[Sequence[Mark]] = [Mark("fence", *fence) for fence in _FENCES]
CALL_FENCES: Final[Sequence[Mark]] = [
    Mark(kind, *fence, *atoms)
    for fence in _FENCES
    for kind, atoms in (("json", _HEAD), *(("marked", (_SPACES, *opener.atoms)) for opener in OPENERS))
]
"""The opening of a code fence and the beginning of its text, if that may be a call."""

BARE_HEADS: Final[Sequence[Mark]] = (Mark("bare", *_HEAD),)


class Found(Struct, frozen=True, gc=False):
    """A mark in a text, up to ``end``."""

    kind: str
    end: int
    name: str = ""
    key: str = ""
    ticks: str = ""


def find_mark(marks: Iterable[Mark], text: str, at: int, *, final: bool) -> Found | Literal["hold"] | None:
    """Return the mark at ``at``, or ``HOLD`` if the text ends within one and is not ``final``."""
    hold = False
    for mark in marks:
        if match := mark.whole.match(text, at):
            groups = match.groupdict()
            ticks = _TICKS.match(text, at)
            return Found(
                mark.kind, match.end(), groups.get("name", ""), groups.get("key", ""), ticks[0] if ticks else ""
            )
        hold = hold or (not final and mark.partial.match(text, at) is not None)
    return HOLD if hold else None


def find_first(marks: Sequence[Mark], text: str, at: int, *, final: bool) -> tuple[int, Found | None]:
    """Return the position of the first of ``marks``, or the end of the text before one."""
    while at < len(text):
        if plain := _NOT_FIRST.match(text, at):
            at = plain.end()
            continue
        found = find_mark(marks, text, at, final=final)
        if found == HOLD:
            return at, None
        if found is not None:
            return at, found
        at += 1
    return at, None


class ToolNames:
    """Finds the tool that a model means by a name."""

    __slots__ = ("_exact", "_similar")

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._exact: dict[str, Tool] = {}
        self._similar: dict[str, Tool | UnsetType] = {}
        for tool in tools:
            self._exact[tool.name] = tool
            key = _similar(tool.name)
            self._similar[key] = tool if key not in self._similar else UNSET

    def find(self, name: str) -> Tool | None:
        """Return the tool of this name, or the only one whose name differs in case, separators or a prefix."""
        name = name.strip()
        bare = re.sub(r"^(?:functions?|tools?)[.:/]", "", name, flags=re.IGNORECASE)
        for candidate in (name, bare):
            if tool := self._exact.get(candidate):
                return tool
        for candidate in (name, bare):
            similar = self._similar.get(_similar(candidate) or " ")
            if isinstance(similar, Tool):
                return similar
        return None


def _similar(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
