"""Reads the stored stream of a background response piece by piece.

Streams are stored as encoded, without heartbeats, so a resumed stream has the same numbers and deltas as the first.
Frames of a stream can be as long as its text, and pieces are small: a frame is passed on as it is read.
"""

from __future__ import annotations

import re

_END = b"\n\n"

_HEAD_BYTES = 256
"""The longest begin of a frame, up to its number."""

_read_number = re.compile(rb'event: [a-z_.]+\ndata: \{"type":"[a-z_.]+","sequence_number":(\d{1,18})').match


class StoredFrames:
    """Selects the frames with a number above ``starting_after``, or all frames if it is None.

    ``number`` is the number of the next frame; ``within_frame`` whether the last piece ended in the middle of a frame.
    ``ended`` is true after the last frame.
    """

    __slots__ = ("_after", "_inside", "_last", "_selected", "_unread", "ended", "number")

    def __init__(self, starting_after: int | None = None) -> None:
        self.number = 0
        self.ended = False
        self._after = -1 if starting_after is None else starting_after
        self._inside = False
        self._last = False  # whether the frame is the last one
        self._selected = False
        self._unread = b""

    @property
    def within_frame(self) -> bool:
        return self._inside or bool(self._unread)

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes of selected frames in ``piece``, which may begin and end anywhere."""
        data, self._unread = self._unread + piece, b""
        selected = []
        begin = 0
        while begin < len(data):
            found = data.find(_END, begin)
            end = len(data) if found < 0 else found + len(_END)
            if not self._inside:
                if found < 0 and end - begin < _HEAD_BYTES:
                    self._unread = data[begin:]
                    break
                self._read_head(data[begin : min(end, begin + _HEAD_BYTES)])
            if found < 0 and data.endswith(b"\n"):  # perhaps the first half of the frame's end
                end -= 1
                self._unread = b"\n"
            if self._selected:
                selected.append(data[begin:end])
            if found < 0:
                self._inside = True
                break
            self._inside = False
            self.ended = self._last
            begin = end
        return b"".join(selected)

    def _read_head(self, head: bytes) -> None:
        """Begin a frame. ``[DONE]`` has no number."""
        found = _read_number(head)
        if found is not None:
            self.number = int(found[1]) + 1
        self._selected = found is None or self.number - 1 > self._after
        self._last = found is None or head.startswith(b"event: response.failed\n")
