"""A Bloom filter over the keys of the SQLite file: it says without the file that an entry does not exist.

It may take a key for one of the file that is none. That happens to a few keys in a thousand, and to all keys of entries
that were removed since the last scan. The event loop changes the filter; the thread that uses the file only reads it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

BITS_PER_KEY = 16

MAX_BITS = 1 << 26

MIN_KEYS = 16_384
"""The smallest number of keys that a scan makes room for."""

SLICE = 500
"""Keys that one step of a scan reads."""

# One row per slice, since the thread waits for the interpreter's lock with each row.
_SCAN = f"""SELECT max(key), group_concat(key, char(10))
FROM (SELECT key FROM entries WHERE key > ? ORDER BY key LIMIT {SLICE})"""  # noqa: S608 - a constant


class KeyFilter:
    """Knows all keys after a scan of the file, which may have ``capacity`` keys.

    ``scanning`` is true between ``begin`` and ``finish``.
    """

    def __init__(self, capacity: int) -> None:
        self.scanning = False
        self._capacity = capacity
        self._room = 0
        self._bits = self._scanned = bytearray(8)
        self._added = self._held = 0
        self._ready = False

    def may_hold(self, key: str) -> bool:
        """Return False if the file certainly has no entry with this key."""
        if not self._ready:
            return True
        bits = self._bits
        number = hash(key)
        step = number >> 32 | 1
        mask = len(bits) * 8 - 1
        for _ in range(3):
            place = number & mask
            if not bits[place >> 3] >> (place & 7) & 1:
                return False
            number += step
        return True

    def add(self, keys: Iterable[str]) -> None:
        """Add keys, before the thread gets their entries."""
        filters = [self._bits] if self._bits is self._scanned else [self._bits, self._scanned]
        for key in keys:
            for bits in filters:
                number = hash(key)
                step = number >> 32 | 1
                mask = len(bits) * 8 - 1
                for _ in range(3):
                    place = number & mask
                    bits[place >> 3] |= 1 << (place & 7)
                    number += step
            self._added += 1

    @property
    def due(self) -> bool:
        """Whether a scan is necessary, or useful since many keys may have been removed."""
        return not self.scanning and (not self._ready or self._added > 2 * self._held + self._room)

    def begin(self, expected: int) -> None:
        """Begin with the keys that are added from now on, which include those of a scan: about ``expected`` keys."""
        self._room = min(self._capacity, max(MIN_KEYS, expected))
        bits = 1 << (BITS_PER_KEY * max(self._room, 64) - 1).bit_length()
        self._scanned = bytearray(min(MAX_BITS, bits) // 8)
        self._added = 0
        self.scanning = True

    def finish(self) -> None:
        """Forget all keys from before ``begin``: the scan has added those of the file."""
        self._bits = self._scanned
        self._held = self._added
        self._ready = True
        self.scanning = False

    def invalidate(self) -> None:
        """Take every key for one of the file, until a scan that begins later has finished."""
        self._ready = self.scanning = False


def scan(connection: sqlite3.Connection) -> Iterator[list[str]]:
    """Read the keys of the file in slices. Raises sqlite3.Error."""
    last: str | None = ""
    while True:
        last, keys = connection.execute(_SCAN, (last,)).fetchone()
        if last is None:
            return
        yield keys.split("\n")
