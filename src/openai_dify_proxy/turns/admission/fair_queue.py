"""The order of waiting turns: fair between callers, then between the end users of a caller. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

INTERACTIVE_IN_A_ROW = 3
"""While both kinds wait, one background turn follows this many interactive ones, so that none waits for ever."""

_T = TypeVar("_T", bound=Hashable)


class Line(NamedTuple):
    """Who waits, and whether in the background, where no person waits for the answer."""

    caller: str
    end_user: str | None
    background: bool = False


# Ordered dicts: finding the first item of a plain dict takes longer, the more items before it were deleted.
_Items = OrderedDict[_T, None]
_Users = OrderedDict[str | None, _Items[_T]]
_Callers = OrderedDict[str, _Users[_T]]


class FairQueue(Generic[_T]):
    """A queue that serves callers in turn, the end users of a caller in turn, and each end user in order.

    Interactive items come before background ones, except for one in four.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[_T, Line] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._interactive: _Callers[_T] = OrderedDict()
        self._background: _Callers[_T] = OrderedDict()
        self._in_a_row = 0

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
        items = self._callers(line).setdefault(line.caller, OrderedDict()).setdefault(line.end_user, OrderedDict())
        items[item] = None
        if first:
            items.move_to_end(item, last=False)

    def pop(self) -> _T:
        """Remove and return the next item. Raises IndexError if the queue is empty."""
        if not self._lines:
            raise IndexError("the queue is empty")
        callers = self._background if self._is_background_next(self._in_a_row) else self._interactive
        self._in_a_row = 0 if callers is self._background else self._in_a_row + 1
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
        callers = self._callers(line)
        users = callers[line.caller]
        items = users[line.end_user]
        del items[item]
        if not items:
            del users[line.end_user]
        if not users:
            del callers[line.caller]

    def position(self, item: _T) -> int:
        """Return how many pops it takes until ``item`` is next: 1 for the next item. ``item`` must be in the queue.

        Takes time in proportion to the items before it.
        """
        return next(number for number, other in enumerate(self._order(), 1) if other == item)

    def _order(self) -> Iterator[_T]:
        """Yield the items in the order in which ``pop`` would return them."""
        interactive, background = _order_of(self._interactive), _order_of(self._background)
        waiting, behind = next(interactive, None), next(background, None)
        in_a_row = self._in_a_row
        while waiting is not None or behind is not None:
            if behind is not None and (waiting is None or in_a_row >= INTERACTIVE_IN_A_ROW):
                yield behind
                behind, in_a_row = next(background, None), 0
            elif waiting is not None:
                yield waiting
                waiting, in_a_row = next(interactive, None), in_a_row + 1

    def _is_background_next(self, in_a_row: int) -> bool:
        return bool(self._background) and (not self._interactive or in_a_row >= INTERACTIVE_IN_A_ROW)

    def _callers(self, line: Line) -> _Callers[_T]:
        return self._background if line.background else self._interactive


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
