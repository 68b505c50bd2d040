"""The order of waiting turns: by priority, then fair between callers, then between a caller's end users. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

MOST_PASSED = 3
"""So many turns of a higher rank may pass a waiting one of a lower rank, so that none waits for ever."""

_T = TypeVar("_T", bound=Hashable)


class Line(Struct, frozen=True, gc=False):
    """Who waits, and whether in the background, where no person waits for the answer.

    Callers with a higher ``priority`` are served first.
    """

    caller: str
    end_user: str | None
    background: bool = False
    priority: int = 0

    @property
    def rank(self) -> _Rank:
        return self.background, -self.priority


_Rank = tuple[bool, int]
"""Lower ranks are served first: interactive turns, and of these the ones with the highest priority."""


# Ordered dicts: finding the first item of a plain dict takes longer, the more items before it were deleted.
_Items = OrderedDict[_T, None]
_Users = OrderedDict[str | None, _Items[_T]]
_Callers = OrderedDict[str, _Users[_T]]


class FairQueue(Generic[_T]):
    """A queue that serves ranks in order, their callers in turn, a caller's end users in turn, and each one in order.

    While several ranks wait, one of a lower rank is served after three of higher ones.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[_T, Line] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._ranks: dict[_Rank, _Callers[_T]] = {}
        self._passed: dict[_Rank, int] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[_T]:
        """Iterate over the items in the order in which they were added."""
        return iter(self._lines)

    def has_place(self, caller: str, places: int) -> bool:
        """Return whether one more item of ``caller`` has a place in a queue of ``places``.

        A caller with less than an equal share of the places has one in a full queue too, which so grows to at most
        twice the ``places``.
        """
        if len(self._lines) < places:
            return True
        count = self._counts.get(caller, 0)
        callers = len(self._counts) + (not count)
        return count * callers < places and len(self._lines) < 2 * places

    def push(self, item: _T, line: Line, *, first: bool = False) -> None:
        """Add ``item`` as the last of its end user, or as the ``first``."""
        self._lines[item] = line
        self._counts[line.caller] = self._counts.get(line.caller, 0) + 1
        callers = self._ranks.setdefault(line.rank, OrderedDict())
        items = callers.setdefault(line.caller, OrderedDict()).setdefault(line.end_user, OrderedDict())
        items[item] = None
        if first:
            items.move_to_end(item, last=False)

    def pop(self) -> _T:
        """Remove and return the next item. Raises IndexError if the queue is empty."""
        if not self._lines:
            raise IndexError("the queue is empty")
        callers = self._ranks[_next_rank(self._ranks, self._passed)]
        caller, users = next(iter(callers.items()))
        end_user, items = next(iter(users.items()))
        item = next(iter(items))
        users.move_to_end(end_user)
        callers.move_to_end(caller)
        self.remove(item)
        return item

    def remove(self, item: _T) -> None:
        """Remove ``item`` if it is in the queue."""
        line = self._lines.pop(item, None)
        if line is None:
            return
        if self._counts[line.caller] > 1:
            self._counts[line.caller] -= 1
        else:
            del self._counts[line.caller]
        callers = self._ranks[line.rank]
        users = callers[line.caller]
        items = users[line.end_user]
        del items[item]
        if not items:
            del users[line.end_user]
        if not users:
            del callers[line.caller]
        if not callers:
            del self._ranks[line.rank]
            self._passed.pop(line.rank, None)

    def position(self, item: _T) -> int:
        """Return how many pops it takes until ``item`` is next: 1 for the next item. ``item`` must be in the queue.

        Takes time in proportion to the items before it.
        """
        return next(number for number, other in enumerate(self._order(), 1) if other == item)

    def _order(self) -> Iterator[_T]:
        """Yield the items in the order in which ``pop`` would return them."""
        waiting = {rank: _order_of(callers) for rank, callers in self._ranks.items()}
        left = {
            rank: sum(len(items) for users in callers.values() for items in users.values())
            for rank, callers in self._ranks.items()
        }
        passed = self._passed.copy()
        while left:
            rank = _next_rank(left, passed)
            yield next(waiting[rank])
            left[rank] -= 1
            if not left[rank]:
                del left[rank]
                passed.pop(rank, None)


def _next_rank(waiting: Iterable[_Rank], passed: dict[_Rank, int]) -> _Rank:
    """Return the rank that is served next, and count for the lower ones that they were passed."""
    ranks = sorted(waiting)
    chosen = next((rank for rank in ranks if passed.get(rank, 0) >= MOST_PASSED), ranks[0])
    passed[chosen] = 0
    for rank in ranks[ranks.index(chosen) + 1 :]:
        passed[rank] = passed.get(rank, 0) + 1
    return chosen


def _order_of(callers: _Callers[_T]) -> Iterator[_T]:
    return _in_turn([_in_turn([iter(items) for items in users.values()]) for users in callers.values()])


def _in_turn(lines: list[Iterator[_T]]) -> Iterator[_T]:
    """Yield one item of each line, then the next of each, and so on."""
    while lines:
        left = []
        for line in lines:
            for item in line:
                yield item
                left.append(line)
                break
        lines = left
