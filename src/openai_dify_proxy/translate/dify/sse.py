"""Splits server-sent events into frames: bytes in, payloads out.

Frames end with an empty line. Lines are split on LF only, since Dify's JSON holds raw U+2028 and similar characters; a
CR before the LF is dropped for balancers that rewrite line ends. A frame without data (Dify's bare ``event: ping``) is
counted but has no payload. An incomplete frame is buffered up to a limit.
"""

from __future__ import annotations


class FrameSplitter:
    """Splits a stream into the payloads of its frames, however the bytes arrive.

    ``limit`` is in bytes. Once a frame exceeds it, ``too_large`` is true and the splitter cannot be used further.
    ``frames`` counts all frames, those without data included, since each one shows that Dify is alive.
    """

    __slots__ = ("_limit", "_rest", "_size", "frames", "too_large")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self._size = 0
        self.frames = 0
        self.too_large = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that ``data`` completes, in order, up to a frame that is too large."""
        if self._rest:
            if b"\n" not in data:  # part of a long frame; joined once, at its end
                self._store(data)
                return []
            self._rest.append(data)
            data = b"".join(self._rest)
            self._rest.clear()
            self._size = 0
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if data.startswith(b"data: ") and data.endswith(b"\n\n") and len(data) <= self._limit:
            payloads = data[6:-2].split(b"\n\ndata: ")
            if b"\n" not in b"".join(payloads):  # only complete one-line frames, the usual case
                self.frames += len(payloads)
                return payloads
        return self._read_frames(data)

    def _read_frames(self, data: bytes) -> list[bytes]:
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        payloads: list[bytes] = []
        for block in blocks:
            if len(block) > self._limit:
                self.too_large = True
                return payloads
            if lines := [line for line in block.split(b"\n") if line.startswith(b"data:")]:
                payloads.append(b"\n".join(line[6:] if line.startswith(b"data: ") else line[5:] for line in lines))
        self.frames += len(blocks)
        if tail:
            self._store(tail)
        return payloads

    def _store(self, data: bytes) -> None:
        self._size += len(data)
        self.too_large = self._size > self._limit
        self._rest.append(data)
