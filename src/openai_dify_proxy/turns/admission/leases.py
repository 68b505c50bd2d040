"""The leases of slots over the state, among the processes that share it.

Each slot of a Dify has a number and an entry in the state, which names the process that may use it. Only one process
can add an entry, so all processes together never have more slots than the limit. An entry expires unless it is renewed,
so a dead process frees its slots. A process keeps spare slots for its next turns, which then need no round trip.

While turns wait and no slot is free, one more entry names the neediest process: the one with the fewest slots, of these
the one whose turn has waited longest. Processes with more slots give some up for it as their turns end.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from openai_dify_proxy.settings.values import MAX_CONCURRENT
from openai_dify_proxy.state.store import Add, Get, Operation, Put, Take
from openai_dify_proxy.turns.admission.auto_limit import LOWEST_LIMIT
from openai_dify_proxy.wire.reading import UNREADABLE

LEASE_SECONDS = 15.0
"""The lifetime of a lease without renewal."""

WANTED_SECONDS = 3.0
"""How long a process counts as one that wants slots after it said so."""

LIMIT_SECONDS = 60.0
"""How long a limit that one process has found is known to the others."""

_Count = Annotated[int, Meta(ge=0, le=MAX_CONCURRENT)]
_Limit = Annotated[int, Meta(ge=LOWEST_LIMIT, le=MAX_CONCURRENT)]


class Wanted(Struct, frozen=True, array_like=True):
    """``owner`` had ``slots`` and wants ``total``, for turns that have waited ``since`` (seconds since the epoch)."""

    owner: bytes
    slots: _Count
    total: _Count
    since: float


class Demand(NamedTuple):
    """What a process needs: slots in ``use``, the number it ``wants``, and since when turns have waited, if any do."""

    use: int
    wants: int
    since: float | None = None


_encode = msgspec.msgpack.Encoder().encode
_read_wanted = msgspec.msgpack.Decoder(Wanted).decode
_read_limit = msgspec.msgpack.Decoder(_Limit).decode

_Purpose = Literal["renew", "give up", "acquire", "look", "wanted", "limit"]


class LeaseTable:
    """The slots of one Dify as the process ``owner`` knows them. Pure: the caller runs the operations.

    ``owned`` holds the numbers of this process's slots, ``others`` the owners of the rest. ``shared_limit`` is the
    limit in the state; None if there is none.
    """

    def __init__(self, url: str, owner: bytes, *, lease: float = LEASE_SECONDS) -> None:
        """``lease`` is the lifetime of a lease without renewal, in seconds."""
        self.owned: set[int] = set()
        self.others: dict[int, bytes] = {}
        self.shared_limit: int | None = None
        self.wanted: Wanted | None = None
        self._owner = owner
        self._lease = lease
        self._name = sha256(url.encode()).hexdigest()[:16]
        self._steps: list[tuple[_Purpose, int]] = []

    def allowed(self, limit: int, since: float | None = None) -> int:
        """Return how many slots this process may use, those that it must give up left out.

        ``since`` is when its oldest waiting turn began to wait.
        """
        mine = sum(number < limit for number in self.owned)
        wanted = self._unmet()
        if wanted is None or mine < self.entitled(limit):
            return mine
        theirs = self._slots_of(wanted.owner)
        if mine > theirs + 1:
            return max((mine + theirs + 1) // 2, mine + theirs - wanted.total)
        return mine - (mine > theirs and _waited_longer(wanted, since))

    def entitled(self, limit: int) -> int:
        """Return how many slots no other process had when the state was last reached."""
        return limit - sum(number < limit for number in self.others)

    def poll(self) -> list[Operation]:
        """Return the operations that only find out what others want."""
        self._steps = [("wanted", 0), ("limit", 0)]
        return [Get(self._key("wanted")), Get(self._key("limit"))]

    def plan(self, demand: Demand, limit: int, *, publish: int | None = None) -> list[Operation]:
        """Return the operations that renew, give up and acquire slots; ``read`` takes their results.

        ``publish`` is a limit to share.
        """
        allowed = self.allowed(limit, demand.since)
        wants = min(demand.wants, limit)
        keep = max(demand.use, min(wants, allowed))
        numbers = sorted(self.owned)
        steps: list[tuple[_Purpose, int]] = [("renew", number) for number in numbers[:keep]]
        steps += [("give up", number) for number in numbers[keep:]]
        missing = self._may_acquire(wants, allowed, demand.since)
        for number in range(limit):
            if number not in self.owned:
                free = missing > 0 and number not in self.others
                missing -= free
                steps.append(("acquire" if free else "look", number))
        steps += [("wanted", 0), ("limit", 0)]
        self.owned.difference_update(numbers[keep:])  # no turn may use them while the operations run
        self._steps = steps
        operations = [self._operation(purpose, number) for purpose, number in steps[:-2]]
        wanted_key, limit_key = self._key("wanted"), self._key("limit")
        own = self._own_wish(wants, allowed, demand.since)
        operations.append(Get(wanted_key) if own is None else Put(wanted_key, _encode(own), WANTED_SECONDS))
        operations.append(Get(limit_key) if publish is None else Put(limit_key, _encode(publish), LIMIT_SECONDS))
        return operations

    def give_up_all(self) -> list[Operation]:
        """Return the operations that give up all slots."""
        operations: list[Operation] = [Take(self._slot_key(number)) for number in sorted(self.owned)]
        self.owned.clear()
        return operations

    def read(self, results: Sequence[bytes | None]) -> list[Operation]:
        """Read the results of ``poll`` or ``plan``. Return operations that undo what concerned slots of others."""
        undo: list[Operation] = []
        for (purpose, number), value in zip(self._steps, results, strict=True):
            if purpose == "wanted":
                self.wanted = _decoded_wanted(value, self._owner)
            elif purpose == "limit":
                self.shared_limit = _decoded_limit(value)
            else:
                undo += self._read_slot(purpose, number, value)
        return undo

    def _read_slot(self, purpose: _Purpose, number: int, value: bytes | None) -> list[Operation]:
        """Read the former entry of a slot."""
        self.owned.discard(number)
        self.others.pop(number, None)
        if value is not None and value != self._owner:
            self.others[number] = value
            # This process was suspended for longer than the lease, and another has the slot.
            return [Put(self._slot_key(number), value, self._lease)] if purpose in ("renew", "give up") else []
        if purpose in ("renew", "acquire"):
            self.owned.add(number)
        return []

    def _may_acquire(self, wants: int, allowed: int, since: float | None) -> int:
        """Return how many slots to acquire: while another process wants some too, no more than it has."""
        missing, wanted = wants - allowed, self._unmet()
        if wanted is not None:
            theirs = self._slots_of(wanted.owner)
            missing = min(missing, theirs + (not _waited_longer(wanted, since)) - allowed)
        return max(0, missing)

    def _own_wish(self, wants: int, allowed: int, since: float | None) -> Wanted | None:
        """Return the entry of this process if its turns wait, others have slots, and none is known to be needier."""
        if since is None or wants <= allowed or not self.others:
            return None
        own, other = Wanted(self._owner, allowed, wants, since), self._unmet()
        return own if other is None or (own.slots, own.since) < (other.slots, other.since) else None

    def _unmet(self) -> Wanted | None:
        """Return what another process wants, unless it has it by now."""
        wanted = self.wanted
        return None if wanted is None or self._slots_of(wanted.owner) >= wanted.total else wanted

    def _slots_of(self, owner: bytes) -> int:
        return sum(other == owner for other in self.others.values())

    def _operation(self, purpose: _Purpose, number: int) -> Operation:
        key = self._slot_key(number)
        match purpose:
            case "renew":
                return Put(key, self._owner, self._lease)
            case "give up":
                return Take(key)
            case "acquire":
                return Add(key, self._owner, self._lease)
            case _:
                return Get(key)

    def _slot_key(self, number: int) -> str:
        return self._key(str(number))

    def _key(self, part: str) -> str:
        return f"slot:{self._name}:{part}"


def _waited_longer(wanted: Wanted, since: float | None) -> bool:
    return since is None or wanted.since < since


def _decoded_wanted(value: bytes | None, owner: bytes) -> Wanted | None:
    """Return what another process wants; None for an entry that no process writes."""
    try:
        wanted = None if value is None else _read_wanted(value)
    except UNREADABLE:
        return None
    return None if wanted is None or wanted.owner == owner or not isfinite(wanted.since) else wanted


def _decoded_limit(value: bytes | None) -> int | None:
    """Return the limit in the state; None for one that no process finds."""
    try:
        return None if value is None else _read_limit(value)
    except UNREADABLE:
        return None
