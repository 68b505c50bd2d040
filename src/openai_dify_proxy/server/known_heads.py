"""Heads of requests that need not be parsed, since another request on the connection had the same one.

A client sends the same head with each chat, but for the length of the body. Parsing it takes longer than all other work
of the front door. So the head of a request that the hot path has served stays in memory, and is compared with the next
one byte for byte. Only the digits of ``Content-Length`` may differ, so the next one has the same scope but for these.
"""

from __future__ import annotations

import re
from weakref import WeakValueDictionary

from uvicorn._types import HTTPScope

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.server.heads import END_OF_HEAD

MAX_DIGITS = 8
"""Digits of the longest length that is read here."""

_CONTENT_LENGTH = b"content-length"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)


class KnownHead(Entity, weakref=True):
    """A valid head: the bytes before and after the digits of its length, and the scope that it was parsed to."""

    before: bytes
    after: bytes
    _scope: HTTPScope
    _length_at: int
    """The index of the length among the headers."""

    def match(self, data: bytes) -> tuple[int, bytes] | None:
        """Return where the head ends, and the digits of its length, if ``data`` begins with this head, else None."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r\n", start, start + MAX_DIGITS + 2)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        return end + len(self.after), digits

    def make_scope(self, length: bytes) -> HTTPScope:
        """Return the scope of a request with this head, whose ``client`` and ``server`` the caller must replace."""
        scope = self._scope.copy()
        headers = [*scope["headers"]]
        headers[self._length_at] = _CONTENT_LENGTH, length
        scope["headers"] = headers
        return scope


class KnownHeads:
    """The known heads of all connections, each as long as a connection uses it: those of one client share theirs."""

    def __init__(self) -> None:
        self._heads: WeakValueDictionary[tuple[bytes, bytes], KnownHead] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, data: bytes, scope: HTTPScope) -> KnownHead | None:
        """Return the head at the beginning of ``data``, which was parsed to ``scope``.

        None if it does not end there, or declares no length.
        """
        end = data.find(END_OF_HEAD)
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if length is None:
            return None
        parts = data[: length.start(1)], data[length.end(1) : end + len(END_OF_HEAD)]
        head = self._heads.get(parts)
        if head is None:
            names = [name for name, _ in scope["headers"]]
            head = self._heads[parts] = KnownHead(*parts, scope.copy(), names.index(_CONTENT_LENGTH))
        return head
