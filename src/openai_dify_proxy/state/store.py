"""The interface of all state stores, and the operations on them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class StateUnavailable(Exception):
    """The state could not be reached, or returned an error. The text is for operators: no key, no value."""


class Get(Struct, frozen=True):
    key: str


class Take(Struct, frozen=True):
    """Reads and removes, atomically: of concurrent takes of a key, one gets the value."""

    key: str


class Put(Struct, frozen=True):
    """Writes, whatever was there. ``ttl`` is in seconds; without one the entry never expires."""

    key: str
    value: bytes
    ttl: float | None = None


class Add(Struct, frozen=True):
    """Writes only if there is nothing. ``ttl`` as of ``Put``."""

    key: str
    value: bytes
    ttl: float | None = None


Operation = Get | Take | Put | Add


class Store(Protocol):
    """Values by key. Keys are short ASCII strings such as ``conversation:3f…``; the part before the colon is the kind.

    A store holds a bounded number of entries: when there are more, those that were written longest ago go first.
    Entries that never expire stay, so that the secret is not lost to a flood of conversations.
    """

    async def run(self, *operations: Operation) -> list[bytes | None]:
        """Runs all in one round trip, in order; each is atomic by itself. Returns one result for each.

        Of ``Get`` and ``Take`` it is the value, of ``Put`` the value that it replaced, of ``Add`` the value that
        was there already (None: ours was added). An expired entry is as if it were not there.
        Raises StateUnavailable; then each operation may have been run or not.
        """
        ...

    async def close(self) -> None:
        """Ends what is under way. Afterwards ``run`` raises StateUnavailable."""
        ...
