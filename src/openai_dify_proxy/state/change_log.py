"""A log beside the SQLite file of the changes that the file does not have yet: one short write commits many of them.

SQLite writes a whole page for each changed entry, so the changes of a second are written to it together. The log has
them until then: a take before its result is returned, a deferred write within ``DEFER_SECONDS``. Whichever process
opens the file next after a crash applies them.

A record holds the changes of one write, and the number of the batch that they belong to. The transaction that writes a
batch to the file sets ``PRAGMA application_id`` to its number, which needs no table of its own. So only the records of
later batches are applied.

The log has two halves of fixed size, written in advance, so that a full disk does not stop takes: new records go to
one, while those in the other await their transaction. After the last record of a half comes a length of zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from operator import itemgetter
from struct import Struct
from zlib import crc32

from msgspec import DecodeError, msgpack

from openai_dify_proxy.state.entries import Entry

START = 4096
HALF = 1024 * 1024

_HEAD = Struct("<II")
_END = bytes(_HEAD.size)

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(tuple[int, dict[str, Entry | None]]).decode


class ChangeLog:
    """Appends to the log in an open file of this process, which must have the file for itself."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._half = 0
        self._position = 0
        self._batch = 0
        self._batches = [0, 0]
        self._usable = _allocate(file)

    def append(self, changes: Mapping[str, Entry | None]) -> bool:
        """Log changes; None removes an entry. Return False if that is not possible now."""
        body = _encode((self._batch, changes))
        record = _HEAD.pack(len(body), crc32(body)) + body + _END
        if not self._usable or self._position + len(record) > HALF:
            return False
        try:
            written = os.pwrite(self._file, record, START + self._half * HALF + self._position)
        except OSError:
            return False
        if written < len(record):
            return False
        self._position += written - len(_END)
        return True

    @property
    def is_filling(self) -> bool:
        """Whether the current half is more than half full."""
        return self._position > HALF // 2

    def end(self) -> None:
        """Let ``append`` fail from now on. The other methods are called by the thread of ``append`` only."""
        self._usable = False

    def begin_batch(self, number: int, committed: int) -> None:
        """Begin with the batch ``number``. The file has all batches up to ``committed``."""
        self._batches[self._half] = self._batch
        self._batch = number
        if self._batches[1 - self._half] <= committed:
            self._half = 1 - self._half
            self._position = 0


def read_changes(file: int, committed: int) -> tuple[int, dict[str, Entry | None]]:
    """Return the logged changes of all batches after ``committed``, and the number of the last batch."""
    last, changes = committed, dict[str, Entry | None]()
    for batch, part in sorted((*_records(file, 0), *_records(file, 1)), key=itemgetter(0)):
        if batch > committed:
            changes |= part
            last = batch
    return last, changes


def is_empty(file: int) -> bool:
    return not any(os.pread(file, len(_END), START + half * HALF).strip(_END) for half in range(2))


def clear_changes(file: int) -> None:
    """Remove all records, if there are any: to write beyond the end of a file leaves a hole in it."""
    for half in range(0 if is_empty(file) else 2):
        os.pwrite(file, _END, START + half * HALF)


def _records(file: int, half: int) -> Iterator[tuple[int, dict[str, Entry | None]]]:
    """Read the records of a half, up to the first one whose writing was cut off."""
    data = memoryview(os.pread(file, HALF, START + half * HALF))
    position = 0
    while position + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        body = data[position : position + length]
        if not length or check != crc32(body):
            return
        try:
            yield _decode(body)
        except DecodeError:
            return
        position += length


def _allocate(file: int) -> bool:
    """Write the empty log, unless the disk has all of it. Return whether it has."""
    status = os.fstat(file)
    if status.st_size >= START + 2 * HALF and status.st_blocks * 512 >= 2 * HALF:
        return True
    try:
        return os.pwrite(file, bytes(2 * HALF), START) == 2 * HALF
    except OSError:
        return False
