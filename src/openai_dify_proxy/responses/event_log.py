"""The streams of responses that run in the background, as they are kept while they grow.

Beside a stream stands how far it has got, and how long its run is to be taken for alive. Whoever wants the run
cancelled leaves a mark, which is seen with the next write.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from openai_dify_proxy.responses.response_store import no_response, unreachable
from openai_dify_proxy.state.store import Get, Operation, Put, Take
from openai_dify_proxy.turns.conversations import Conversations

BLOCK_BYTES = 32 * 1024
"""Streams are kept in blocks of this size: few entries, of which only the last is written again."""


class RunProgress(Struct, frozen=True):
    """``size`` bytes of the stream are kept; ``task_id`` and ``user`` are Dify's, for its stop route.

    ``alive_until`` is in seconds since the epoch, and None once the run has ended.
    """

    size: int = 0
    task_id: str | None = None
    user: str | None = None
    alive_until: float | None = None


_encode = msgspec.msgpack.Encoder().encode
_read_progress = msgspec.msgpack.Decoder(RunProgress).decode


class EventLogs:
    """All of them, by their responses' names. Who may read one is not asked here."""

    def __init__(self, conversations: Conversations) -> None:
        self.store = conversations.store
        self._ttl = conversations.ttl

    async def progress(self, name: str) -> RunProgress:
        """Raises ResponseNotFound and StateUnreachable."""
        value = (await self._ask(Get(_progress(name))))[0]
        if value is None:
            raise no_response(name)
        return _read_progress(value)

    async def read(self, name: str, begin: int, end: int) -> bytes:
        """The bytes from ``begin`` to before ``end``. Raises ResponseNotFound and StateUnreachable."""
        if begin == end:
            return b""
        first = begin // BLOCK_BYTES
        blocks = await self._ask(*(Get(_block(name, number)) for number in range(first, _count(end))))
        found = [block for block in blocks if block is not None]
        if len(found) < len(blocks):
            raise no_response(name)
        return b"".join(found)[begin - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    async def mark(self, name: str, seconds: float) -> None:
        """Asks the run to end; the mark stays for so long. Raises StateUnreachable."""
        await self._ask(Put(_mark(name), b"1", seconds))

    def putting(self, name: str, progress: RunProgress) -> Operation:
        return Put(_progress(name), _encode(progress), self._ttl)

    def putting_blocks(self, name: str, tail: bytes, begin: int) -> list[Operation]:
        """What keeps ``tail``, which begins with the block at ``begin``."""
        return [
            Put(_block(name, (begin + at) // BLOCK_BYTES), tail[at : at + BLOCK_BYTES], self._ttl)
            for at in range(0, len(tail), BLOCK_BYTES)
        ]

    def removing(self, name: str, progress: RunProgress) -> list[Operation]:
        return [Take(_progress(name)), *(Take(_block(name, number)) for number in range(_count(progress.size)))]

    def asking_mark(self, name: str) -> Operation:
        return Get(_mark(name))

    async def _ask(self, *operations: Operation) -> list[bytes | None]:
        results = await self.store.run(*operations)
        if results is None:
            raise unreachable()
        return results


class EventLogWriter:
    """Keeps one stream; ``marked`` tells whether its run has been asked to end."""

    def __init__(self, streams: EventLogs, name: str) -> None:
        self.marked = False
        self._streams = streams
        self._name = name
        self._size = 0
        self._tail = b""  # of what is kept, the block that is not full
        self._fresh: list[bytes] = []

    @property
    def has_news(self) -> bool:
        """Whether there is something that is not kept yet."""
        return bool(self._fresh)

    def add(self, frames: bytes) -> None:
        if frames:
            self._fresh.append(frames)

    async def write(self, progress: RunProgress, also: Sequence[Operation] = ()) -> bool:
        """Keeps what there is, ``also`` and at last the progress; False if the state could not be reached.

        What cannot be kept now is kept with the next write.
        """
        streams, name = self._streams, self._name
        fresh = b"".join(self._fresh)
        tail = self._tail + fresh
        size = self._size + len(fresh)
        blocks = streams.putting_blocks(name, tail, self._size - len(self._tail)) if fresh else []
        progress = msgspec.structs.replace(progress, size=size)
        results = await streams.store.run(streams.asking_mark(name), *blocks, *also, streams.putting(name, progress))
        if results is None:
            return False
        self._size = size
        self._tail = tail[len(tail) - size % BLOCK_BYTES :]
        self._fresh.clear()
        self.marked = self.marked or results[0] is not None
        return True


def _progress(name: str) -> str:
    return f"progress:{name}"


def _block(name: str, number: int) -> str:
    return f"stream:{name}:{number}"


def _mark(name: str) -> str:
    return f"cancelled:{name}"


def _count(size: int) -> int:
    """How many blocks hold so many bytes."""
    return -(-size // BLOCK_BYTES)
