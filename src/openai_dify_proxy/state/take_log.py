"""A log of taken entries, beside the SQLite file: it commits a take with one short write, without a transaction.

A take must outlive a crash of the process before Dify is asked, or a later turn could take the entry once more. The
transaction that removes the entry follows within milliseconds; the log has the takes until then. Whichever process
opens the file next removes the logged entries. A record names the version of the entry that was taken, by its time, so
applying a record again, at any time, removes nothing that was written later.

The log has two halves of fixed size, written in advance, so that a full disk does not stop takes: new takes go to one,
while the takes in the other await their transaction. After the last record of a half comes a length of zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from struct import Struct
from zlib import crc32

START = 4096
HALF = 128 * 1024

_HEAD = Struct("<HI")
_WRITTEN = Struct("<d")
_END = b"\0\0"

Taken = tuple[str, float]
"""The key of a taken entry, and when the entry was written."""


class TakeLog:
    """Appends to the log in an open file of this process, which must have the file for itself."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._half = 0
        self._position = 0
        self._batches = [0, 0]
        self._usable = _allocate(file)

    def append(self, takes: Sequence[Taken]) -> bool:
        """Log takes. Return False if that is not possible now."""
        records = b"".join([_record(key, written) for key, written in takes])  # keys are short: see Store
        end = self._position + len(records)
        if not self._usable or end + len(_END) > HALF:
            return False
        try:
            os.pwrite(self._file, records + _END, START + self._half * HALF + self._position)
        except OSError:
            return False
        self._position = end
        return True

    def end_batch(self, number: int, committed: int) -> None:
        """Record that the takes so far are part of the batches up to ``number``; those to ``committed`` are removed."""
        self._batches[self._half] = number
        if self._batches[1 - self._half] <= committed:
            self._half = 1 - self._half
            self._position = 0


def read_takes(file: int) -> Iterator[Taken]:
    """Return the logged takes."""
    for half in range(2):
        data = os.pread(file, HALF, START + half * HALF)
        position = 0
        while position + _HEAD.size <= len(data):
            length, check = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            body = data[position : position + length]
            if length <= _WRITTEN.size or check != crc32(body):  # the last write was cut off, or there is none
                break
            yield body[_WRITTEN.size :].decode(), _WRITTEN.unpack_from(body)[0]
            position += length


def clear_takes(file: int) -> None:
    """Remove all records."""
    for half in range(2):
        os.pwrite(file, _END, START + half * HALF)


def _record(key: str, written: float) -> bytes:
    body = _WRITTEN.pack(written) + key.encode()
    return _HEAD.pack(len(body), crc32(body)) + body


def _allocate(file: int) -> bool:
    size = START + 2 * HALF
    present = os.fstat(file).st_size
    if present >= size:
        return True
    try:
        return os.pwrite(file, bytes(size - present), present) == size - present
    except OSError:
        return False
