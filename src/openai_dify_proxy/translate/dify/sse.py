"""Splits server-sent events into frames: bytes in, payloads out.

Frames end with an empty line. Lines are split on LF only, since Dify's JSON holds raw U+2028 and similar characters; a
CR before the LF is dropped for balancers that rewrite line ends. A frame without data (Dify's bare ``event: ping``) is
counted but has no payload. An incomplete frame is buffered up to a limit.
"""

from __future__ import annotations

from msgspec import field

from openai_dify_proxy.entity import Entity


class FrameSplitter(Entity):
    """Splits a stream into the payloads of its frames, however the bytes arrive.

    ``limit`` is in bytes. Once a frame exceeds it, ``too_large`` is true and the splitter cannot be used further.
    ``frames`` counts all frames, those without data included, since each one shows that Dify is alive.
    """

    limit: int
    frames: int = 0
    too_large: bool = False
    _rest: bytearray = field(default_factory=bytearray)
    _cr: bool = False  # the last byte was a CR, which may begin a line end

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that ``data`` completes, in order, up to a frame that is too large."""
        if self._cr or b"\r" in data:
            data = self._unify_line_ends(data)
        if self._rest:
            ends_frame = b"\n\n" in data or (data.startswith(b"\n") and self._rest.endswith(b"\n"))
            self._rest += data
            if not ends_frame:  # part of a long frame, which is read once, at its end
                self.too_large = len(self._rest) > self.limit
                return []
            data = bytes(self._rest)
            self._rest.clear()
        elif (
            data.find(b"\n") == len(data) - 2
            and data[-1:] == b"\n"
            and data[:6] == b"data: "
            and len(data) <= self.limit
        ):
            self.frames += 1
            return [data[6:-2]]  # one event in one read, as a model writes
        end = data.rfind(b"\n\n") + 2
        if end > 1 and end <= self.limit and len(data) - end <= self.limit and data.startswith(b"data: "):
            payloads = data[6 : end - 2].split(b"\n\ndata: ")
            if b"\n" not in b"".join(payloads):  # only complete one-line frames, the usual case
                self.frames += len(payloads)
                self._rest += data[end:]
                return payloads
        return self._read_frames(data)

    def _read_frames(self, data: bytes) -> list[bytes]:
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        payloads: list[bytes] = []
        for block in blocks:
            if len(block) > self.limit:
                self.too_large = True
                return payloads
            if lines := [line for line in block.split(b"\n") if line.startswith(b"data:")]:
                payloads.append(b"\n".join(line[6:] if line.startswith(b"data: ") else line[5:] for line in lines))
        self.frames += len(blocks)
        self._rest += tail
        self.too_large = len(tail) > self.limit
        return payloads

    def _unify_line_ends(self, data: bytes) -> bytes:
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        return data[: len(data) - self._cr].replace(b"\r\n", b"\n")
