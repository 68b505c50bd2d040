"""The interface of all state stores, and the operations on them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class StateUnavailable(Exception):
    """The state could not be reached or returned an error. The text is for operators, without keys or values."""


class Get(Struct, frozen=True):
    key: str


class Take(Struct, frozen=True):
    """Read and remove atomically: only one of several concurrent takes gets the value."""

    key: str


class Put(Struct, frozen=True):
    """Write, and replace any value. ``ttl`` is in seconds; an entry without one never expires."""

    key: str
    value: bytes
    ttl: float | None = None


class Add(Struct, frozen=True):
    """Write unless the key has a value. ``ttl`` is as in ``Put``."""

    key: str
    value: bytes
    ttl: float | None = None


Operation = Get | Take | Put | Add


class Store(Protocol):
    """Values by key. Keys are short ASCII strings such as ``conversation:3f…``; the part before the colon is the kind.

    A store holds a bounded number of entries and removes the oldest ones beyond it. Entries that never expire are not
    removed, so that a flood of conversations cannot displace the secret.
    """

    async def run(self, *operations: Operation) -> list[bytes | None]:
        """Run all operations in order, in one round trip, and return a result for each. Each one is atomic by itself.

        ``Get`` and ``Take`` return the value, ``Put`` the replaced value, ``Add`` the present value (None if it added
        its own). Expired entries count as absent. Raises StateUnavailable; each operation may have run nevertheless.
        """
        ...

    async def close(self) -> None:
        """Finish the current runs. Afterwards ``run`` raises StateUnavailable."""
        ...
