"""The interface of all state stores, and the operations on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

UNKNOWN = "unknown"
"""The owner of expiring entries that were written before entries had owners. It ranks like a caller."""

MAX_ENTRY_BYTES = 16 * 1024 * 1024
"""The largest value of an entry. Stored responses of the longest context windows have about 10 MB."""

STATE_TIMEOUT = 1.0
"""The longest time that a run takes, in seconds."""

LARGE_BYTES = 256 * 1024
"""A run that writes more is large: it is executed apart from others, so that only its caller waits for it."""

DEFER_SECONDS = 0.05
"""How long a deferred write may be lost."""

LARGE_PATIENCE = 5
"""How many times longer a large run may take."""


class StateUnavailable(Exception):
    """The state could not be reached or returned an error. The text is for operators, without keys or values."""


class Get(Struct, frozen=True):
    """Read. ``large`` makes the run a large one, for values without a small limit."""

    key: str
    large: bool = False


class Take(Struct, frozen=True):
    """Read and remove atomically: only one of several concurrent takes gets the value. ``owner`` is as in ``Put``."""

    key: str
    owner: str = ""


class Put(Struct, frozen=True):
    """Write, and replace any value. ``ttl`` is in seconds; an entry without one never expires.

    ``owner`` is the id of the caller that the entry belongs to. Entries without an owner belong to the server. A
    ``deferred`` write may be lost if the process dies within ``DEFER_SECONDS``; any other outlives the process as soon
    as the run returns.
    """

    key: str
    value: bytes
    ttl: float | None = None
    owner: str = ""
    deferred: bool = False


class Add(Struct, frozen=True):
    """Write unless the key has a value. ``ttl``, ``owner`` and ``deferred`` are as in ``Put``."""

    key: str
    value: bytes
    ttl: float | None = None
    owner: str = ""
    deferred: bool = False


class Draw(Struct, frozen=True):
    """Draw ``amount`` from a token bucket that holds ``burst`` and gains ``rate`` per second; all of it or nothing.

    ``forced`` draws more than there is, so that later draws wait for the debt. An amount of 0 reads the level. The
    result is read by ``buckets.read_level``. The entry expires once the bucket is full. The write is deferred.
    """

    key: str
    rate: float
    burst: float
    amount: float = 1.0
    forced: bool = False


class Count(Struct, frozen=True):
    """Add ``amounts``, pairs of a name and a whole number, to the counts of an entry, and read all of its counts.

    The entry expires ``ttl`` seconds after the last addition. Without amounts it is only read. The result, the counts
    after the addition, is read by ``counters.read_counts``. The write is deferred.
    """

    key: str
    ttl: float
    amounts: tuple[tuple[str, int], ...] = ()


Operation = Get | Take | Put | Add | Draw | Count

WRITES = (Put, Add)
"""Operations that write a value of the caller."""

OWNED = (Take, Put, Add)
"""Operations on entries that may belong to a caller."""


class Store(Protocol):
    """Values by key. Keys are short ASCII strings such as ``conversation:3f…``; the part before the colon is the kind.

    A store holds a bounded number of entries, and of bytes in keys and values. Beyond it, the owners that hold the most
    lose their oldest entries. Entries without an owner, and entries that never expire, are not counted or removed,
    so that a flood of conversations cannot displace the secret.
    """

    async def run(self, *operations: Operation) -> list[bytes | None]:
        """Run all operations in order, in one round trip, and return a result for each. Each one is atomic by itself.

        ``Get`` and ``Take`` return the value, ``Put`` the replaced value, ``Add`` the present value (None if it added
        its own), ``Draw`` and ``Count`` their result. Expired entries count as absent. Raises StateUnavailable, at the
        latest after a time limit; each operation may have run nevertheless.
        """
        ...

    def run_now(self, *operations: Operation) -> list[bytes | None] | None:
        """Run the operations without waiting, if they can be run in this process, and return their results.

        Return None otherwise, and once the store is closed. Nothing has been run then, and ``run`` may succeed.
        """
        ...

    async def close(self) -> None:
        """Finish the current runs. Afterwards ``run`` raises StateUnavailable."""
        ...


def size_of(operations: Sequence[Operation]) -> int:
    """Return the bytes that a run writes."""
    return sum([len(operation.value) for operation in operations if isinstance(operation, WRITES)])


def is_read(operation: Operation) -> bool:
    """Return whether an operation changes nothing."""
    if isinstance(operation, Draw):
        return not operation.amount
    return isinstance(operation, Get) or (isinstance(operation, Count) and not operation.amounts)


def is_large(operations: Sequence[Operation]) -> bool:
    """Return whether a run is large: it writes much, or may read much."""
    size = 0
    for operation in operations:
        if isinstance(operation, WRITES):
            size += len(operation.value)
        elif isinstance(operation, Get) and operation.large:
            return True
    return size > LARGE_BYTES
