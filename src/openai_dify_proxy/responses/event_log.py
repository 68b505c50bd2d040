"""The stored event streams of background responses, which grow while the responses run.

The state also holds the progress of each stream: its size, and the lease of its run. A request to cancel the run leaves
a mark, which the run reads with its next write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from openai_dify_proxy.responses.response_store import response_not_found, state_unreachable
from openai_dify_proxy.state.store import Get, Operation, Put, Take
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations

MAX_LOG_BYTES = 1 << 30
"""Sizes beyond it are those of damaged entries."""

BLOCK_BYTES = 32 * 1024
"""Block size of stored streams: there are few entries, and only the last one is rewritten."""

PORTION_BLOCKS = 2
"""The blocks of a stream that are read at once, and that a follower holds until its client has read them."""

PORTION_BYTES = PORTION_BLOCKS * BLOCK_BYTES

WRITE_BYTES = 1024 * 1024
"""The most bytes that one transaction adds: the end of a stream repeats its whole text four times."""


class RunProgress(Struct, frozen=True):
    """The progress of a run. ``size`` is the stored size of its stream in bytes.

    ``task_id`` and ``user`` are Dify's, for its stop route; both are None while the run is queued. ``alive_until``
    (seconds since the epoch) is the end of the lease, and None once the run has ended.
    """

    size: Annotated[int, Meta(ge=0, le=MAX_LOG_BYTES)] = 0
    task_id: str | None = None
    user: str | None = None
    alive_until: float | None = None


_encode = msgspec.msgpack.Encoder().encode
_read_progress = msgspec.msgpack.Decoder(RunProgress).decode


class EventLogs:
    """The stored streams by response id. They do not check access: their callers do."""

    def __init__(self, conversations: Conversations) -> None:
        self.store = conversations.store
        self._ttl = conversations.ttl

    async def progress(self, name: str) -> RunProgress:
        """Return the progress of a run. Raises ResponseNotFound and StateUnreachable."""
        key = _progress_key(name)
        progress = self.store.decode(key, (await self._run(Get(key)))[0], _read_progress)
        if progress is None:
            raise response_not_found(name)
        return progress

    async def read(self, name: str, begin: int) -> tuple[RunProgress, bytes]:
        """Return the progress of a run, and a portion of its stream from ``begin`` on, empty at its end.

        Raises ResponseNotFound and StateUnreachable.
        """
        key = _progress_key(name)
        first = begin // BLOCK_BYTES
        portion = range(first, first + PORTION_BLOCKS)
        value, *blocks = await self._run(Get(key), *(Get(_block_key(name, number)) for number in portion))
        progress = self.store.decode(key, value, _read_progress)
        if progress is None:
            raise response_not_found(name)
        end = min(progress.size, (first + PORTION_BLOCKS) * BLOCK_BYTES)
        stored = blocks[: max(0, _count(end) - first)]  # a damaged entry may have any size
        found = [block for block in stored if block is not None]
        if len(found) < len(stored):
            raise response_not_found(name)
        return progress, b"".join(found)[begin - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    async def request_cancellation(self, owner: Caller, name: str, seconds: float) -> None:
        """Leave a cancellation mark that lives for ``seconds``. Raises StateUnreachable."""
        await self._run(Put(_cancellation_key(name), b"1", seconds, owner.id))

    def put_progress(self, owner: Caller, name: str, progress: RunProgress) -> Operation:
        return Put(_progress_key(name), _encode(progress), self._ttl, owner.id)

    def put_blocks(self, owner: Caller, name: str, tail: bytes, begin: int) -> list[Operation]:
        """Return the operations that store ``tail``, which begins with the block at ``begin``."""
        return [
            Put(_block_key(name, (begin + at) // BLOCK_BYTES), tail[at : at + BLOCK_BYTES], self._ttl, owner.id)
            for at in range(0, len(tail), BLOCK_BYTES)
        ]

    def remove_operations(self, owner: Caller, name: str, progress: RunProgress) -> list[Operation]:
        keys = [_progress_key(name), *(_block_key(name, number) for number in range(_count(progress.size)))]
        return [Take(key, owner.id) for key in keys]

    def get_cancellation(self, name: str) -> Operation:
        return Get(_cancellation_key(name))

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self.store.run(*operations)
        if results is None:
            raise state_unreachable()
        return results


class EventLogWriter:
    """Writes one stream, of the caller ``owner``.

    ``cancelled`` is true once the cancellation mark was read, ``size`` is the stored size. The end of the stream stays
    in memory, where all followers in this process read it.
    """

    def __init__(self, logs: EventLogs, owner: Caller, name: str) -> None:
        self.cancelled = False
        self.size = 0
        self._logs = logs
        self._owner = owner
        self._name = name
        self._recent = b""
        self._tail = b""  # the last stored block if it is not full
        self._unwritten: list[bytes] = []
        self._progress: RunProgress | None = None  # the last one written

    @property
    def has_unwritten(self) -> bool:
        """Whether there are frames to write."""
        return bool(self._unwritten)

    def recent(self, begin: int) -> bytes | None:
        """Return a portion of the stored stream from ``begin`` on, or None if only the state holds it."""
        offset = begin - (self.size - len(self._recent))
        return self._recent[offset : offset + PORTION_BYTES] if offset >= 0 else None

    def add(self, frames: bytes) -> None:
        if frames:
            self._unwritten.append(frames)

    async def write(self, progress: RunProgress, also: Sequence[Operation] = ()) -> bool:
        """Write the waiting frames, ``also``, and last the progress; return False if the state could not be reached.

        More than ``WRITE_BYTES`` are written in portions, and the last one with ``also``. After a failure, the next
        call writes what is missing.
        """
        waiting = b"".join(self._unwritten)
        last = max(0, len(waiting) - 1) // WRITE_BYTES * WRITE_BYTES
        for begin in range(0, last, WRITE_BYTES):
            if not await self._write(waiting[begin : begin + WRITE_BYTES], self._progress or progress):
                self._unwritten = [waiting[begin:]]
                return False
        self._unwritten = [waiting[last:]] if waiting else []
        if not await self._write(waiting[last:], progress, also):
            return False
        self._unwritten = []
        self._progress = progress
        return True

    async def _write(self, added: bytes, progress: RunProgress, also: Sequence[Operation] = ()) -> bool:
        logs, owner, name = self._logs, self._owner, self._name
        tail = self._tail + added
        size = self.size + len(added)
        blocks = logs.put_blocks(owner, name, tail, self.size - len(self._tail)) if added else []
        progress = msgspec.structs.replace(progress, size=size)
        results = await logs.store.run(
            logs.get_cancellation(name), *blocks, *also, logs.put_progress(owner, name, progress)
        )
        if results is None:
            return False
        self.size = size
        self._recent = tail[-PORTION_BYTES:]
        self._tail = tail[len(tail) - size % BLOCK_BYTES :]
        self.cancelled = self.cancelled or results[0] is not None
        return True

    async def remove(self, also: Sequence[Operation]) -> None:
        """Remove the stream and run ``also``; do nothing if the state is unreachable."""
        operations = self._logs.remove_operations(self._owner, self._name, RunProgress(self.size))
        await self._logs.store.run(*also, *operations)


def _progress_key(name: str) -> str:
    return f"progress:{name}"


def _block_key(name: str, number: int) -> str:
    return f"stream:{name}:{number}"


def _cancellation_key(name: str) -> str:
    return f"cancelled:{name}"


def _count(size: int) -> int:
    """Return the number of blocks for ``size`` bytes."""
    return -(-size // BLOCK_BYTES)
