"""Server-sent events, as Dify and the proxies before it frame them: bytes in, payloads out.

Frames end with an empty line. Lines are split on LF only, since Dify's JSON holds raw U+2028 and its like; a CR before
the LF is dropped for balancers that rewrite line ends. A frame without data (Dify's bare ``event: ping``) is told
apart from silence but has no payload. What follows the last empty line is kept for the next read, up to a limit.
"""

from __future__ import annotations


class FrameTooLarge(Exception):
    """A frame grew beyond the limit without ending."""


class FrameSplitter:
    """Splits a stream into the payloads of its frames, however the bytes arrive.

    ``limit`` bounds the bytes of one frame. ``frames`` counts all frames, those without data included: whatever
    Dify sends is a sign of life.
    """

    __slots__ = ("_data", "_limit", "_rest", "_size", "_touched", "frames")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0
        self._touched = False
        self.frames = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that ``data`` completes, in order.

        Raises FrameTooLarge, after which the splitter is of no more use.
        """
        payloads: list[bytes] = []
        lines = data.split(b"\n")
        tail = lines.pop()
        if lines and self._rest:
            self._rest.append(lines[0])
            lines[0] = b"".join(self._rest)
            self._rest.clear()
            self._size = sum(map(len, self._data))
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                self._end_frame(payloads)
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._grow(len(line))
            else:
                self._touched = True
        if tail:
            self._rest.append(tail)
            self._grow(len(tail))
        return payloads

    def _end_frame(self, payloads: list[bytes]) -> None:
        if self._data:
            payloads.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data.clear()
            self.frames += 1
        elif self._touched:
            self.frames += 1
        self._touched = False
        self._size = 0

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise FrameTooLarge
