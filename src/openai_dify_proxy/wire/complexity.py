"""Limits for JSON documents from outside, checked before they are decoded.

A decoded value takes up to thirty times the bytes of its JSON: 15 MB of ``{}`` become 447 MB, while the decoder holds
the interpreter. The check counts bytes in C, and looks closer only at documents with many brackets or commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

MAX_VALUES = 500_000
MAX_DEPTH = 500
"""Levels of nested arrays and objects. msgspec's own limit depends on the depth of the call stack."""

_CHUNK = 1 << 18
"""Bytes that are looked at closely at once, to bound the memory that the check needs."""

_ROUNDS = 8
"""How often the innermost pairs of brackets are removed, before each bracket is looked at."""

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},'))
_NOT_IN_ESCAPES = bytes(set(_NOT_STRUCTURE) - set(b"\\/bfnrtu"))
"""Bytes that are neither structure nor a part of an escape in valid JSON."""
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class TooComplex(Exception):
    """A document that takes too much work or memory. The text names the exceeded limit."""


def check_complexity(document: bytes | bytearray) -> None:
    """Raise TooComplex for JSON with more than ``MAX_VALUES`` values or more than ``MAX_DEPTH`` levels.

    Keys do not count as values; empty arrays and objects count twice. Bytes that are not JSON may pass: the decoder
    rejects them.
    """
    if len(document) <= MAX_DEPTH <= MAX_VALUES:
        return  # too short for either
    most = MAX_VALUES - MAX_DEPTH  # with few opening brackets, each of which begins one more value
    if (len(document) < most or document.count(b",") < most) and _has_few_openings(document):
        return
    values, depth = 1, 0
    for structure in _structure(document):
        brackets = structure.translate(None, b",")
        opened = brackets.count(b"[") + brackets.count(b"{")
        values += opened + len(structure) - len(brackets)
        if values > MAX_VALUES:
            raise TooComplex(f"more than {MAX_VALUES} values")
        if _may_exceed(brackets, MAX_DEPTH - depth) and _deepest(brackets, depth) > MAX_DEPTH:
            raise TooComplex(f"more than {MAX_DEPTH} levels of nested arrays and objects")
        depth += opened - (len(brackets) - opened)


def _has_few_openings(document: bytes | bytearray) -> bool:
    """Return whether ``document`` has at most ``MAX_DEPTH`` opening brackets, those in strings included.

    To find each of a few is faster than to count them.
    """
    left = MAX_DEPTH
    for opening in b"[{":
        at = document.find(opening)
        while at >= 0 and left >= 0:
            left -= 1
            at = document.find(opening, at + 1)
    return left >= 0


def _deepest(brackets: bytes, depth: int) -> int:
    """Return the deepest level that ``brackets`` reach from level ``depth``."""
    return max(accumulate(map(_STEPS.__getitem__, brackets), initial=depth))


def _may_exceed(brackets: bytes, levels: int) -> bool:
    """Return whether ``brackets`` may be nested more than ``levels`` deep, by removing the innermost pairs a few times.

    Each removal takes off at most one level.
    """
    for removed in range(_ROUNDS):
        if brackets.count(b"[") + brackets.count(b"{") <= levels - removed:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return True


def _structure(document: bytes | bytearray) -> Iterator[bytes]:
    """Yield the brackets and commas outside strings, in chunks."""
    rest = b""
    in_string = 0
    for begin in range(0, len(document), _CHUNK):
        chunk = rest + document[begin : begin + _CHUNK]
        rest = b"\\" * ((len(chunk) - len(chunk.rstrip(b"\\"))) % 2)  # begins an escape that the next chunk ends
        if b"\\" in chunk:
            chunk = chunk.translate(None, _NOT_IN_ESCAPES)  # a smaller chunk is faster to search
            chunk = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = chunk.translate(None, _NOT_STRUCTURE).split(b'"')
        yield b"".join(parts[in_string::2])
        in_string = (in_string + len(parts) - 1) % 2
