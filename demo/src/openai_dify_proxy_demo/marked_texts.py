"""Finds texts between two marks, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator


def find_between(text: str, begin: str, end: str) -> Iterator[tuple[int, int, str]]:
    """Yield each text between two marks: the positions of the first mark and behind the last one, and the text."""
    at = 0
    while (first := text.find(begin, at)) >= 0:
        last = text.find(end, first + len(begin))
        if last < 0:
            return
        at = last + len(end)
        yield first, at, text[first + len(begin) : last]


def find_argument(text: str, keyword: str, at: int = 0) -> tuple[int, int, str] | None:
    """Return the first `KEYWORD<<text>>`: its positions in `text`, and its text, which may end with `>`."""
    first = text.find(f"{keyword}<<", at)
    if first < 0:
        return None
    begin = first + len(keyword) + 2
    found = _ARGUMENT_END.search(text, begin)
    return None if found is None else (first, found.end(), text[begin : found.end() - 2])


_ARGUMENT_END = re.compile(">>(?!>)")
