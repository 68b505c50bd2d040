"""A string that counts the characters that its users read or copy, so that a test can compare work with size."""

from __future__ import annotations

from typing import Any, Self, SupportsIndex


class CountedText(str):
    """Text whose slices, sums and searches add to ``counter[0]``; the results count as well."""

    __slots__ = ("counter",)

    counter: list[int]

    def __new__(cls, text: str, counter: list[int]) -> Self:
        self = super().__new__(cls, text)
        self.counter = counter
        return self

    def _counted(self, text: str) -> CountedText:
        self.counter[0] += len(text)
        return CountedText(text, self.counter)

    def __getitem__(self, key: Any) -> CountedText:
        return self._counted(super().__getitem__(key))

    def __add__(self, other: str) -> CountedText:
        return self._counted(super().__add__(other))

    def __radd__(self, other: str) -> CountedText:
        return self._counted(other.__add__(self))

    def find(self, sub: str, start: SupportsIndex | None = None, end: SupportsIndex | None = None) -> int:
        found = super().find(sub, start, end)
        begin = 0 if start is None else int(start)
        self.counter[0] += (len(self) if found < 0 else found + len(sub)) - begin
        return found

    def startswith(self, prefix: Any, start: SupportsIndex | None = None, end: SupportsIndex | None = None) -> bool:
        self.counter[0] += len(prefix)
        return super().startswith(prefix, start, end)

    def lstrip(self, chars: str | None = None, /) -> CountedText:
        return self._counted(super().lstrip(chars))
